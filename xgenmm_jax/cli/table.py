"""`xgenmm table RUN...`: the paper's tables with the scores of runs beside its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import io
import json
import re
import sys
from typing import Literal

from rich.console import Console
from rich.text import Text
import tyro

from xgenmm_jax import files
from xgenmm_jax.cli.evaluate_benchmarks import FOLDER
from xgenmm_jax.cli.options import RunPath, UserPath, parse, refuse_no_file
from xgenmm_jax.evaluation import results
from xgenmm_jax.evaluation.paper_tables import TABLES, Column, PaperTable, few_shot_table
from xgenmm_jax.evaluation.profiles import PROFILES, Profile
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.table_rows import Filled, fill
from xgenmm_jax.evaluation.tasks.suites import BENCHMARKS
from xgenmm_jax.paths import Path

WIDTH = 100
"""Columns of text that goes to no terminal."""

_SHOTS = re.compile(r"\w+_(\d+)")


@dataclass(frozen=True)
class Arguments:
    """The paper's tables, its rows first and then the scores that `xgenmm evaluate --tasks` left in runs' folders."""

    runs: tyro.conf.Positional[tuple[RunPath, ...]]
    """Folders of runs; none shows the paper's rows alone."""
    table: Literal["all", "table1", "table2", "fewshot", "ablation", "blip2"] = "all"
    """Which table; all: those of which a run has a score but ablation, and one of what is in none of them. blip2:
    BLIP-2's zero-shot scores."""
    profile: Profile | None = None
    """Whose rules the scores follow; by default the paper's, of benchmarks without these the authors' or others'."""
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
    if arguments.format == "text" and arguments.output is None and sys.stdout.isatty():
        _print(filled, Console())
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
    shots = sorted({count for task in tasks if (count := shots_of(task)) is not None} or {4, 8})
    named = {"fewshot": [few_shot_table(count) for count in shots], **{name: [table] for name, table in TABLES.items()}}
    if which != "all":
        return [fill(table, runs) for table in named[which]]
    others = {r.task: r.title for listed in runs.values() for r in listed if not _is_in_the_paper(r.task)}
    asked = [
        table
        for name in ("table1", "table2", "fewshot", "blip2")
        for table in named[name]
        if any(column.task in tasks for column in table.columns)
    ]
    if others:
        columns = tuple(Column(task, title) for task, title in others.items())
        asked.append(PaperTable("other", "Benchmarks of none of the paper's tables", columns, ()))
    return [fill(table, runs) for table in asked or named["table1"]]


def shots_of(task: str) -> int | None:
    """Of a few-shot set's task the number of demonstrations: "coco_4" -> 4. None for other tasks."""
    match = _SHOTS.fullmatch(task)
    if match is None or task not in {column.task for column in few_shot_table(int(match[1])).columns}:
        return None
    return int(match[1])


def _is_ours(task: str) -> bool:
    return shots_of(task) is not None or any(task == benchmark.name for benchmark in BENCHMARKS)


def _is_in_the_paper(task: str) -> bool:
    named = {column.task for table in TABLES.values() for column in table.columns}
    return task in named or shots_of(task) is not None


def written(filled: Sequence[Filled], form: str, runs: Mapping[str, Sequence[Result]]) -> str:
    """The tables as a text of that form."""
    from xgenmm_jax.reporting import paper_table

    if form == "json":
        return json.dumps([paper_table.to_json(one) for one in filled], indent=1) + "\n"
    if form == "html":
        return paper_table.html(filled, curves(runs), token_curves(runs))
    if form == "markdown":
        return "\n".join(paper_table.markdown(one) for one in filled)
    file = io.StringIO()
    _print(filled, Console(width=WIDTH, file=file))
    return file.getvalue()


def curves(runs: Mapping[str, Sequence[Result]]) -> dict[str, list[tuple[int, float]]]:
    """By run and set: (number of demonstrations, score), where there are at least two numbers."""
    points: dict[str, list[tuple[int, float]]] = {}
    for run, listed in runs.items():
        for result in listed:
            count = shots_of(result.task)
            if count is not None:
                title = f"{run}: {result.title.rpartition(', ')[0]}"
                points.setdefault(title, []).append((count, result.value.value))
    return {title: sorted(listed) for title, listed in points.items() if len(listed) > 1}


def token_curves(runs: Mapping[str, Sequence[Result]]) -> dict[str, list[tuple[float, float]]]:
    """By few-shot task: (billions of tokens that a run was trained on, score) over runs, where two or more know theirs.

    The axes of the paper's Figure 5; runs are meant to be checkpoints of one, or of unlike lengths of training.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for result in (result for listed in runs.values() for result in listed):
        if result.tokens and shots_of(result.task) is not None:
            points.setdefault(result.title, []).append((result.tokens / 1e9, result.value.value))
    return {title: sorted(listed) for title, listed in points.items() if len(listed) > 1}


def _results(run: Path, profile: Profile | None, judged: bool) -> list[Result]:
    """A run's results of a profile; None: of each benchmark those of the profile by which it is asked where none is
    given. Of a benchmark that is not ours this is not known: those of the first profile that it has.

    Raises ValueError where it has none, with those of which it has.
    """
    folder = run / FOLDER / (profile or "paper")
    listed = results.read(folder, judged) if folder.is_dir() else []
    if profile is None:
        by_default = {benchmark.name: benchmark.choice().profile for benchmark in BENCHMARKS}
        for other in sorted(set(PROFILES) - {"paper"}, key=("official", *PROFILES).index):
            path = run / FOLDER / other
            there = {result.task for result in listed}
            listed += [
                result
                for result in (results.read(path, judged) if path.is_dir() else ())
                if by_default.get(result.task) == other or not (result.task in there or _is_ours(result.task))
            ]
    if not listed:
        others = sorted(path.name for path in (run / FOLDER).glob("*") if path.is_dir() and any(path.iterdir()))
        there = f"; there are scores of {', '.join(others)} (--profile)" if others else ""
        raise ValueError(
            f"table: no scores in '{folder}'{there}; ask the run with "
            f"`xgenmm evaluate {run} --tasks table1 --data DIR --profile {folder.name}`."
        )
    return listed


def _name(run: Path, runs: Sequence[Path]) -> str:
    """The folder's name; where another run has the same, with as many folders above it as tell them apart."""
    parts = run.resolve().parts
    others = {other.resolve().parts for other in runs} - {parts}
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return str(run)


def _print(filled: Sequence[Filled], console: Console) -> None:
    from xgenmm_jax.reporting import paper_table

    for one in filled:
        console.print(Text(paper_table.title(one), "bold"))
        console.print(paper_table.for_terminal(one))
        console.print(Text("\n".join(paper_table.footnotes(one))), end="\n\n")
