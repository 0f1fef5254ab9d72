"""A dataclass out of the command line; what is mistyped is one sentence on stderr and exit code 2."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import io
import itertools
import os
import pathlib
import re
import sys
from types import MappingProxyType
from typing import Annotated, Any, NoReturn, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from xgenmm_jax import files, hub
from xgenmm_jax.cli import renamed
from xgenmm_jax.cli.errors import MOST
from xgenmm_jax.paths import Path, is_in_bucket, local_path, run_path, user_path

T = TypeVar("T")
_UNKNOWN = "Unrecognized options: "
_KINDS = {"INT": "a whole number", "FLOAT": "a number", "STR": "a text", "PATH": "a path", "{None}": "None"}
_REWORDED = (
    (r"invalid literal for int\(\) with base 10: (.+)", r"got \1, wanted INT"),
    (r"could not convert string to float: (.+)", r"got \1, wanted FLOAT"),
    (r"no type matching (.+) could be instantiated from \[(.*)\]", r"got \2, wanted \1"),
    (r"Could not parse arguments \[(.*)\] into tuple type .*?\[(.*)\]", r"got \1, wanted (\2)"),
    (r"^invalid choice (.+) for argument '(.+?)'\. Expected one of \((.*?),?\)", r"\2: got \1, wanted one of \3"),
    (r"^Missing value for argument '(.+?)'\. Expected 1 values", r"\1: got no value; give one after it"),
    (r"^Missing value for argument '(.+?)'\. Expected (\d+) values", r"\1: got too few values; give \2 after it"),
)
"""Sentences of Python and of tyro, and ours; wanted are tyro's names of kinds, put in words by `_KINDS`."""
_POSITIONAL = tyro.conf.Positional[Any].__metadata__[0]


class _Typed(type(pathlib.Path())):
    """A path as it was typed: `parse`, which knows its option, reads it. `Path("")` alone is the current folder."""

    text: str
    read: Callable[[str, str], Path | hub.HubName]


def checked_path(value: str, what: str, read: Callable[[str, str], Path] = user_path) -> Path:
    """The path that a user gave; of one in a bucket it is asked whether there is such a bucket.

    Raises ValueError, within a minute, for no path, and where the bucket is not there or does not answer.
    """
    path = read(value, what)
    files.check_bucket(path, what)
    return path


def _run_path(value: str, what: str) -> Path:
    return checked_path(value, what, run_path)


def _local_run_path(value: str, what: str) -> pathlib.Path:
    local_path(value, what)
    return run_path(value, what)


def _source(value: str, what: str) -> Path | hub.HubName:
    return hub.path_or_name(value, what, checked_path)


def _run_source(value: str, what: str) -> Path | hub.HubName:
    return hub.path_or_name(value, what, _run_path)


def _path_spec(read: Callable[[str, str], Path | hub.HubName]) -> PrimitiveConstructorSpec:
    def typed(words: list[str]) -> Path:
        path = _Typed(words[0])
        path.text, path.read = words[0], read
        return path

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=typed,
        is_instance=lambda value: isinstance(value, pathlib.PurePath),
        str_from_instance=lambda path: [str(path)],
    )


UserPath = Annotated[Path, _path_spec(checked_path)]
"""The type of every option and argument that is a path: `~` is the home folder, an empty one is refused. It may lie in
a bucket."""
RunPath = Annotated[Path, _path_spec(_run_path)]
"""That of folders with checkpoints."""
Source = Annotated[Path | hub.HubName, _path_spec(_source)]
"""That of weights and tokenizers, which may be named as on the hub; `hub.fetch` gives the folder."""
RunSource = Annotated[Path | hub.HubName, _path_spec(_run_source)]
"""That of these where it may be a folder with checkpoints."""
LocalPath = Annotated[pathlib.Path, _path_spec(local_path)]
"""That of what must lie on a disk."""
LocalRunPath = Annotated[pathlib.Path, _path_spec(_local_run_path)]


def parse(kind: type[T], argv: Sequence[str], program: str) -> T:
    """The command's arguments as `kind`, a dataclass.

    Exits with code 2 and one sentence on stderr for an unknown option, a missing value or one of another type. Raises
    ValueError for an empty path.
    """
    parsed = parse_overrides(kind, tyro.MISSING_NONPROP, argv, program)
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


def parse_overrides(
    kind: type[T],
    default: Any,
    argv: Sequence[str],
    program: str,
    other_names: Mapping[str, str] = MappingProxyType({}),
    help_option: str = "--help",
) -> T:
    """`default`, of type `kind`, with the command line's changes. Exits as `parse`; --help is tyro's.

    other_names: options of other programs, "--learning-rate", and what they are called here. help_option: the one that
    a user is told to list all options.
    """
    parsed, box = _tyro(kind, default, argv, program)
    if box is None:
        return parsed
    positionals = ["-" for field in dataclasses.fields(kind) if _is_positional(field)]

    def unknown(name: str) -> str | None:
        """Tyro's box about an option that there is not, given alone: else it tells of a positional behind it."""
        _, error = _tyro(kind, default, [*positionals, name], program)
        return error if error is not None and one_sentence(error).startswith(_UNKNOWN) else None

    for word in argv[: argv.index("--")] if "--" in argv else argv:
        name = word.split("=")[0]
        if re.match("--?[a-zA-Z]", word) and (error := unknown(name)):
            new = renamed.option(name)
            error_of_new = None if new is None else unknown(new)
            if new is not None and error_of_new is None:
                _leave(f"no option {name}; it is {new} now")
            _leave(f"{_unknown(name, error_of_new or error, other_names)}{help_option} lists all")
    sentence = one_sentence(box)
    if sentence.startswith(_UNKNOWN):
        word = sentence.removeprefix(_UNKNOWN).split(", ")[0]
        _leave(f"'{word}' belongs to no option; a text of several words goes in quotes, {help_option} lists all")
    _leave(sentence)


def _tyro(kind: type[T], default: Any, argv: Sequence[str], program: str) -> tuple[T | Any, str | None]:
    """What tyro makes of the command line, or the box in which it tells what is wrong."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            config = (tyro.conf.AvoidSubcommands,)
            return tyro.cli(kind, default=default, args=list(argv), prog=program, config=config), None
    except SystemExit as exit_:
        if exit_.code != 2:  # help; or the reader of the output has left
            raise
        return None, box.getvalue()
    except ValueError as error:  # of a dataclass whose options have no prefix; tyro boxes those of all others
        return None, f"Value error\n  {error}"


def _unknown(name: str, box: str, other_names: Mapping[str, str]) -> str:
    """About an unknown option, up to a last remedy. Near ones are those that tyro lists, a line each above its help."""
    instead = renamed.gone(name)
    if instead is not None:
        return f"no option {name} any more; {instead}; "
    near = re.findall(r"^ {4}(--[^\s,]+)", "\n".join(_contents(box)), re.MULTILINE)[:MOST]
    if name in other_names:
        near = [other_names[name]]
    # Only questions and paths begin with one dash, or have spaces.
    is_text = not near and (not name.startswith("--") or " " in name)
    suggestion = f"did you mean {' or '.join(near)}; " if near else ""
    remedy = "what begins with a dash and is none goes behind --; " if is_text else ""
    return f"no option {name}; {suggestion}{remedy}"


def one_sentence(box: str) -> str:
    """The error out of tyro's box: what stands above the first rule or empty line; wrapped lines are joined."""
    lines = itertools.takewhile(lambda line: not set(line) <= set("─-"), _contents(box))
    sentence = " ".join(line.strip() for line in lines).rstrip(".")
    # What a config's own check says begins with the field; tyro names its class or its index before.
    sentence = re.sub(r"^Error parsing ((?!-)[^:]*: (?=[\w.]+: ))?", "", sentence)
    for pattern, words in _REWORDED:
        sentence = re.sub(pattern, words, sentence)
    before, separator, kinds = sentence.rpartition(", wanted ")
    if separator and set(re.split(r"[| ]", kinds)) <= set(_KINDS):
        kinds = re.sub(r"\{None\}\|(\w+)", r"\1|{None}", kinds)
        for name, words in _KINDS.items():
            kinds = kinds.replace(name, words)
        return f"{before}{separator}{kinds.replace('|', ' or ')}"
    return sentence


def _contents(box: str) -> list[str]:
    """The lines below the title, without the frame, which is ASCII where the terminal's encoding is not UTF-8."""
    lines = [line[2:].rstrip(" │") for line in box.splitlines()[1:]]
    return lines[1:] if lines and set(lines[0]) <= set("-") else lines


def take_option(argv: list[str], name: str) -> tuple[list[str], str | None]:
    """The arguments without `name VALUE` or `name=VALUE`, and the value.

    Raises ValueError where it is missing, as when it is an unset variable of the shell, or there twice.
    """
    rest, values, words = [], [], iter(argv)
    for word in words:
        if word.startswith(f"{name}="):
            values.append(word.removeprefix(f"{name}="))
        elif word == name:
            value = next(words, None)
            if value is None or value.startswith("--"):
                behind = "" if value is None else f", but the option {value}"
                raise ValueError(f"{name}: got no value{behind}; give one after it ({name}=VALUE takes any).")
            values.append(value)
        else:
            rest.append(word)
    if len(values) > 1:
        raise ValueError(f"{name}: got {' and '.join(map(repr, values))}; give one.")
    return rest, values[0] if values else None


def refuse_file(folder: Path) -> None:
    """Raises ValueError where the folder that --workdir names, or one that it lies in, is a file."""
    if is_in_bucket(folder):
        return
    file = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if file is not None and not file.is_dir():
        raise ValueError(f"--workdir: got '{folder}', but '{file}' is a file; give a new folder, or that of a run.")


def refuse_no_file(path: Path, option: str) -> None:
    """Raises ValueError where a result cannot be written to a path, before hours are spent on it."""
    if is_in_bucket(path):
        if path.is_dir():
            raise ValueError(f"{option}: '{path}' is a folder; give a file in it.")
        return
    if path.is_dir() or not path.parent.is_dir():
        wrong = f"'{path}' is a folder" if path.is_dir() else f"no folder '{path.parent}' for '{path}'"
        raise ValueError(f"{option}: {wrong}; give a file in a folder that is there.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{option}: '{path.parent}' may not be written to by you; give a file in another folder.")


def _leave(sentence: str) -> NoReturn:
    print(f"xgenmm: {sentence}.", file=sys.stderr)
    raise SystemExit(2)
