"""`xgenmm score FILE --task geneval` and the like: drawn pictures, by what a detector or a judge said of them."""

import json
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xgenmm_jax import files
from xgenmm_jax.evaluation.image_generation import scored_files
from xgenmm_jax.evaluation.image_generation.prompts import Benchmark

if TYPE_CHECKING:
    from xgenmm_jax.cli.score import Arguments

_USES = {"dpg": ("reading", "data"), "mjhq": ("against",), "wise_2025": ("reading",), "wise_verified": ("reading",)}
_OPTIONS = ("profile", "reading", "data", "against", "page", "judge")


def main(arguments: "Arguments") -> int:
    """Prints the table; gives the exit code."""
    benchmark = cast(Benchmark, arguments.task)
    for name in _OPTIONS:
        if getattr(arguments, name) is not None and name not in _USES.get(benchmark, ()):
            raise ValueError(f"--{name}: {benchmark} does not use it; leave it away.")
    scores = scored_files.score(
        benchmark,
        arguments.predictions,
        arguments.reading or "careful",
        arguments.data,
        arguments.against,
    )
    Console().print(_table(scores))
    if arguments.json is not None:
        files.write_whole(arguments.json, json.dumps(scores.to_json(), indent=1) + "\n")
    return 0


def _table(scores: scored_files.GenerationScores) -> Any:
    table = Table(title=Text(f"{scores.benchmark}: {scores.rules}", "italic"), title_justify="left")
    table.add_column("score")
    for name in ("value", "of"):
        table.add_column(name, justify="right")
    digits = 4 if scores.benchmark.startswith("wise") else 2
    for name, value, count in scores.rows:
        table.add_row(Text(name), f"{value:.{digits}f}", f"{count:,}")
    table.caption = Text("\n".join(scores.notes)) if scores.notes else None
    return table
