"""A dataclass out of the command line; what is mistyped is one sentence on stderr and exit code 2."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import io
import os
from pathlib import Path
import re
import sys
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from xgenmm_jax.cli.errors import nearest_option
from xgenmm_jax.paths import run_path, user_path

T = TypeVar("T")
_POSITIONAL = tyro.conf.Positional[Any].__metadata__[0]
_WITHOUT_PREFIX = tyro.conf.OmitArgPrefixes[Any].__metadata__[0]


class _Typed(type(Path())):
    """A path as it was typed: `parse`, which knows its option, reads it. `Path("")` alone is the current folder."""

    text: str
    read: Callable[[str, str], Path]


def _path_spec(read: Callable[[str, str], Path]) -> PrimitiveConstructorSpec:
    def typed(words: list[str]) -> Path:
        path = _Typed(words[0])
        path.text, path.read = words[0], read
        return path

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=typed,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


UserPath = Annotated[Path, _path_spec(user_path)]
"""The type of every option and argument that is a path: `~` is the home folder, an empty one is refused."""
RunPath = Annotated[Path, _path_spec(run_path)]
"""That of folders with checkpoints."""


def parse(kind: type[T], argv: Sequence[str], program: str) -> T:
    """The command's arguments as `kind`, a dataclass.

    Exits with code 2 and one sentence on stderr for an unknown option, a missing value or one of another type. Raises
    ValueError for an empty path.
    """
    parsed = _parse(kind, tyro.MISSING_NONPROP, argv, program, option_names(kind))
    values = {field.name: _read(getattr(parsed, field.name), field) for field in dataclasses.fields(parsed)}
    return dataclasses.replace(parsed, **values)


def _read(value: Any, field: dataclasses.Field) -> Any:
    """A field's value with its paths read. Raises ValueError, which names the option, for what is no path."""
    if isinstance(value, tuple):
        return tuple(_read(item, field) for item in value)
    if not isinstance(value, _Typed):
        return value
    return value.read(value.text, field.name.upper() if _is_positional(field) else f"--{field.name.replace('_', '-')}")


def _is_positional(field: dataclasses.Field) -> bool:
    return _POSITIONAL in getattr(field.type, "__metadata__", ())


def parse_overrides(config: T, argv: Sequence[str], program: str, beside: Sequence[str] = ()) -> T:
    """The config with the command line's changes, typed by its dataclasses.

    beside: options that the command takes off before, to suggest. Exits as `parse`.
    """
    return _parse(type(config), config, argv, program, [*option_names(config), *beside])


def _parse(kind: type[T], default: Any, argv: Sequence[str], program: str, options: Sequence[str]) -> T:
    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text):
            parsed, unknown = tyro.cli(
                kind,
                default=default,
                args=list(argv),
                prog=program,
                config=(tyro.conf.AvoidSubcommands,),
                return_unknown_args=True,
            )
    except SystemExit as exit_:
        if exit_.code != 2:  # help; or nobody reads it
            raise
        # An unknown option takes no value, so that something else may seem wrong.
        before_text = argv[: argv.index("--")] if "--" in argv else argv
        _refuse_unknown([word for word in before_text if _is_option(word) and not _is_known(word, options)], options)
        _leave(_first_sentence(text.getvalue()))
    _refuse_unknown([word for word in unknown if _is_option(word)], options)
    if unknown:
        _leave(f"'{unknown[0]}' belongs to no option; a text of several words goes in quotes, --help lists all")
    return parsed


def _is_option(word: str) -> bool:
    return re.match("--?[a-zA-Z]", word) is not None


def _is_known(word: str, options: Sequence[str]) -> bool:
    name = word.split("=")[0].replace("_", "-")
    return name in ("-h", "--help", *options) or re.sub(r"(--|\.)no-", r"\1", name) in options


def _refuse_unknown(words: Sequence[str], options: Sequence[str]) -> None:
    if words:
        name = words[0].split("=")[0]
        near = nearest_option(name, options)
        # Only questions and paths begin with one dash, or have spaces.
        is_text = not near and (not name.startswith("--") or " " in name)
        behind = "what begins with a dash and is none goes behind --; " if is_text else ""
        _leave(f"no option {name}; {near}{behind}--help lists all")


def option_names(value: Any, prefix: str = "--") -> list[str]:
    """Every option that gives a field, "--optimizer.peak-lr", of a config or of a command's dataclass."""
    names = []
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if not _is_positional(f)]
        items = []
        for field in filter(lambda field: field.init, fields):
            if _WITHOUT_PREFIX in getattr(field.type, "__metadata__", ()):
                names.extend(option_names(getattr(value, field.name), prefix))
            else:
                items.append((field.name, getattr(value, field.name, None)))
    else:
        items = [(str(number), item) for number, item in enumerate(value)]
    for name, item in items:
        option = f"{prefix}{name.replace('_', '-')}"
        is_nested = isinstance(item, tuple) and any(dataclasses.is_dataclass(i) or isinstance(i, tuple) for i in item)
        if dataclasses.is_dataclass(item) or is_nested:
            names.extend(option_names(item, f"{option}."))
        else:
            names.append(option)
    return names


def _first_sentence(box: str) -> str:
    """The error out of tyro's box: what stands between its title and the next rule; wrapped lines are joined."""
    lines = [line.strip(" │") for line in box.splitlines()[1:]]
    sentence: list[str] = []
    for line in lines:
        if set(line) <= set("─-╰╯"):
            if sentence:
                break
        else:
            sentence.append(line)
    said = " ".join(sentence).rstrip(".") or box.strip()
    said = re.sub(r"no type matching (.+) could be instantiated from \[(.*)\]", r"got \2, wanted \1", said)
    # What a config's own check says begins with the field; tyro names its class or its place before.
    return re.sub(r"^Error parsing ((?!-)[^:]*: (?=[\w.]+: ))?", "", said)


def refuse_file(folder: Path) -> None:
    """Raises ValueError where the folder that --workdir names, or one that it lies in, is a file."""
    file = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if file is not None and not file.is_dir():
        raise ValueError(f"--workdir: got '{folder}', but '{file}' is a file; give a new folder, or that of a run.")


def refuse_no_file(path: Path, option: str) -> None:
    """Raises ValueError where a result cannot be written to a path, before hours are spent on it."""
    if path.is_dir() or not path.parent.is_dir():
        wrong = f"'{path}' is a folder" if path.is_dir() else f"no folder '{path.parent}' for '{path}'"
        raise ValueError(f"{option}: {wrong}; give a file in a folder that is there.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{option}: '{path.parent}' may not be written to by you; give a file in another folder.")


def _leave(sentence: str) -> None:
    print(f"xgenmm: {sentence}.", file=sys.stderr)
    raise SystemExit(2)
