"""`xgenmm curate tuning-set DST`: prompts and a teacher's pictures of them, in the form of BLIP3o-60k."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from xgenmm_jax import files
from xgenmm_jax.cli import data_tables, errors
from xgenmm_jax.cli.curate_options import of_file, typed
from xgenmm_jax.cli.options import LocalPath, parse
from xgenmm_jax.curation import tuning_card, tuning_prompts, tuning_set
from xgenmm_jax.curation.tuning_prompts import Excluded, chosen, plain
from xgenmm_jax.curation.tuning_set import Options, Teacher
from xgenmm_jax.paths import local_path

DRAWN = "drawn"


@dataclass(frozen=True)
class Arguments:
    """Makes prompts by category, asks a teacher for a picture of each, and writes tars of KEY.jpg and KEY.txt.

    A teacher is a function of a Python file: of a list of prompts it gives as many PIL.Image.Image, None where it
    refuses one. Each picture is kept at once; a killed command goes on where it was.
    """

    folder: tyro.conf.Positional[LocalPath]
    """DST, a new folder."""
    teacher: str | None = None
    """FILE.py:NAME, the function; with --prompts drawn by default the program that draws the world of `make demo`."""
    prompts: Literal["templates", "drawn"] = "templates"
    """Templates in the categories of BLIP3o-60k, or captions of the drawn world."""
    categories: tuple[str, ...] = ()
    """Of the prompts; by default all."""
    captions: tuple[str, ...] = ()
    """CATEGORY=FILE: a category more, of a text file's lines."""
    count: int = 1000
    """Different prompts of a category at most."""
    kept_out: tuple[LocalPath, ...] = ()
    """Files with the prompts of tests, which are not asked: a line each, or JSON lines with "prompt" (GenEval's)."""
    seed: int = 0
    """Of the templates."""
    batch: int = 16
    """Prompts that the teacher is given at once."""
    samples: int = 1000
    """Of a tar, at most."""


def main(argv: Sequence[str]) -> int:
    """Prints what was made; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm curate tuning-set")
    for name in ("count", "batch", "samples"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name}: got {getattr(arguments, name)}; give 1 or more.")
    teacher, teacher_name = _teacher(arguments)
    prompts = _prompts(arguments)
    options_used = {
        "command": typed("tuning-set", argv), "teacher": teacher_name, "prompts": arguments.prompts,
        "seed": str(arguments.seed),
        "kept out": ", ".join(path.name for path in arguments.kept_out) or "no test's prompts",
    }  # fmt: skip
    if arguments.prompts == DRAWN:
        options_used["kept out"] = "what the drawn world's tests hold out, by the splits of its captions"
    with errors.writing(arguments.folder):
        notes = tuning_set.make(
            arguments.folder, {name: one.prompts for name, one in prompts.items()}, teacher,
            {"teacher": teacher_name}, Options(arguments.batch, arguments.samples), print,
        )  # fmt: skip
        kept_out = {name: one.kept_out for name, one in prompts.items()}
        card = tuning_card.write(arguments.folder, notes, options_used, kept_out)
    rows = [
        ("files", f"{len(notes):,}"),
        ("prompts", f"{sum(note.prompts for note in notes):,}"),
        ("pictures", f"{sum(note.images for note in notes):,}"),
        ("without one", f"{sum(len(note.left_out) for note in notes):,}"),
        ("see", str(card)),
    ]
    data_tables.print_rows(f"tuning set in {arguments.folder}", rows)
    return 0


def _teacher(arguments: Arguments) -> tuple[Teacher, str]:
    """The function, and what the card calls it. Raises ValueError where there is none."""
    if arguments.teacher is None:
        if arguments.prompts != DRAWN:
            raise ValueError(
                "--teacher: none is named; give FILE.py:NAME, a function of a list of prompts that gives pictures."
            )
        from xgenmm_jax.nano.drawing import tuning

        return tuning.teacher, "the program that draws the world of make demo, lit from the top left"
    function, path = of_file(arguments.teacher, "--teacher")
    name = arguments.teacher.rpartition(":")[2]
    if not callable(function):
        raise ValueError(f"--teacher: '{name}' of '{path}' is a {type(function).__name__}, wanted a function.")
    return function, f"{path.name}:{name}"


def _prompts(arguments: Arguments) -> dict[str, Excluded]:
    """By category: of the templates or the drawn world, then those of files."""
    kept_out = {plain(prompt) for path in arguments.kept_out for prompt in _lines(path)}
    known: Mapping[str, Any] = tuning_prompts.CATEGORIES
    make: Callable[[str], Excluded] = lambda name: tuning_prompts.from_templates(  # noqa: E731
        name, arguments.count, arguments.seed, kept_out
    )
    if arguments.prompts == DRAWN:
        from xgenmm_jax.nano.drawing import tuning

        if kept_out:
            raise ValueError("--kept-out: captions of the drawn world have splits of their own; leave it away.")
        known, make = tuning.CATEGORIES, lambda name: tuning.captions(name, arguments.count, arguments.seed)
    prompts = {name: make(name) for name in arguments.categories or (() if arguments.captions else known)}
    for text in arguments.captions:
        category, equals, file = text.partition("=")
        if not equals or not category or category in prompts:
            raise ValueError(f"--captions: got '{text}', wanted CATEGORY=FILE, each category once.")
        prompts[category] = chosen(_lines(local_path(file, "--captions")), arguments.count, kept_out)
    return prompts


def _lines(path: Path) -> list[str]:
    """Prompts of a file: its lines, or "prompt" of its JSON lines."""
    if not path.is_file():
        raise ValueError(f"tuning-set: there is no file '{path}'; give one with a prompt a line.")
    if path.suffix not in (".jsonl", ".json"):
        return files.read_lines(path)
    prompts = []
    for number, value in files.json_lines(path):
        prompt = value.get("prompt") if isinstance(value, dict) else None
        if not isinstance(prompt, str):
            raise ValueError(f"tuning-set: line {number} of '{path}' has no \"prompt\"; give JSON lines that have one.")
        prompts.append(prompt)
    return prompts
