"""`xgenmm table RUN...`: the paper's tables with the scores of runs beside its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import re
from typing import Literal

import tyro

from xgenmm_jax import files
from xgenmm_jax.cli.evaluate_benchmarks import FOLDER
from xgenmm_jax.cli.options import RunPath, UserPath, parse, refuse_no_file
from xgenmm_jax.evaluation import results
from xgenmm_jax.evaluation.paper_tables import TABLES, few_shot_table
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.table_rows import Filled, fill

_SHOTS = re.compile(r"(?P<name>\w+)_(?P<shots>\d+)")


@dataclass(frozen=True)
class Arguments:
    """The paper's tables, its rows first and then the scores that `xgenmm evaluate --tasks` left in runs' folders."""

    runs: tyro.conf.Positional[tuple[RunPath, ...]]
    """Folders of runs; none shows the paper's rows alone."""
    table: Literal["all", "table1", "table2", "fewshot", "ablation"] = "all"
    """Which table; all: those of which a run has a score, Table 1 where none has."""
    profile: Profile = "paper"
    """Whose rules the scores follow."""
    judged: bool = False
    """Scores with a judge where a run has them; without this the rules', and of MM-Vet, which has none, the judge's."""
    format: Literal["text", "markdown", "html", "json"] = "text"
    """How it is written; html is a page of its own."""
    output: UserPath | None = None
    """A file in place of the terminal."""


def main(argv: Sequence[str]) -> int:
    """Prints or writes the tables; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm table")
    if arguments.output is not None:
        refuse_no_file(arguments.output, "--output")
    runs = {_name(run, arguments.runs): _results(run, arguments.profile, arguments.judged) for run in arguments.runs}
    filled = tables(arguments.table, runs)
    if arguments.format == "text" and arguments.output is None:
        _print(filled)
        return 0
    text = written(filled, arguments.format, runs)
    if arguments.output is None:
        print(text, end="")
    else:
        files.write_whole(arguments.output, text)
    return 0


def tables(which: str, runs: Mapping[str, Sequence[Result]]) -> list[Filled]:
    """The tables of a name, filled; of "all" those of which a run has a score."""
    tasks = {result.task for listed in runs.values() for result in listed}
    shots = sorted({int(match["shots"]) for task in tasks if (match := _SHOTS.fullmatch(task))} or {4, 8})
    named = {"fewshot": [few_shot_table(count) for count in shots], **{name: [table] for name, table in TABLES.items()}}
    if which != "all":
        return [fill(table, runs) for table in named[which]]
    asked = [
        table
        for name in ("table1", "table2", "fewshot")
        for table in named[name]
        if any(column.task in tasks for column in table.columns)
    ]
    return [fill(table, runs) for table in asked or named["table1"]]


def written(filled: Sequence[Filled], form: str, runs: Mapping[str, Sequence[Result]]) -> str:
    """The tables as a text of that form."""
    from xgenmm_jax.reporting import paper_table

    if form == "json":
        return json.dumps([paper_table.to_json(one) for one in filled], indent=1) + "\n"
    if form == "html":
        return paper_table.html(filled, curves(runs))
    if form == "markdown":
        return "\n".join(paper_table.markdown(one) for one in filled)
    from rich.console import Console

    console = Console(width=160, record=True, file=None)
    with console.capture() as captured:
        for one in filled:
            console.print(paper_table.for_terminal(one))
            console.print("\n".join(paper_table.footnotes(one)), markup=False, soft_wrap=True)
    return captured.get()


def curves(runs: Mapping[str, Sequence[Result]]) -> dict[str, list[tuple[float, float]]]:
    """By run and set: (number of demonstrations, score), where there are at least two numbers."""
    points: dict[str, list[tuple[float, float]]] = {}
    for run, listed in runs.items():
        for result in listed:
            if match := _SHOTS.fullmatch(result.task):
                points.setdefault(f"{run}: {match['name']}", []).append((int(match["shots"]), result.value.value))
    return {title: sorted(found) for title, found in points.items() if len(found) > 1}


def _results(run: Path, profile: Profile, judged: bool) -> list[Result]:
    """A run's results of a profile. Raises ValueError where it has none, with those of which it has."""
    folder = run / FOLDER / profile
    found = results.read(folder, judged) if folder.is_dir() else []
    if not found:
        others = sorted(path.name for path in (run / FOLDER).glob("*") if path.is_dir() and any(path.iterdir()))
        there = f"; there are scores of {', '.join(others)} (--profile)" if others else ""
        raise ValueError(
            f"table: no scores in '{folder}'{there}; ask the run with "
            f"`xgenmm evaluate {run} --tasks table1 --data DIR --profile {profile}`."
        )
    return found


def _name(run: Path, runs: Sequence[Path]) -> str:
    """The folder's name, or its path where two runs have the same."""
    return run.name if sum(other.name == run.name for other in runs) == 1 else str(run)


def _print(filled: Sequence[Filled]) -> None:
    from rich.console import Console

    from xgenmm_jax.reporting import paper_table

    console = Console()
    for one in filled:
        console.print(paper_table.for_terminal(one))
        console.print("\n".join(paper_table.footnotes(one)), markup=False, soft_wrap=True)
