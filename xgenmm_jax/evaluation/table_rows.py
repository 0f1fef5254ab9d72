"""Rows of a paper's table: the published ones and those of runs, with what is missing and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import math
import statistics

from xgenmm_jax.evaluation.paper_tables import ABLATIONS, DOMAINS, PaperTable
from xgenmm_jax.evaluation.results import NO_JUDGE, Result


@dataclass(frozen=True)
class Cell:
    """value: in [0, 100], None where there is none. stderr: None for published numbers. marks: of its footnotes."""

    value: float | None
    stderr: float | None = None
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelRow:
    """openness: weights, data, code; None where unknown. average: of a run over the columns that are there.

    marks: of footnotes to the whole row.
    """

    model: str
    is_ours: bool
    cells: tuple[Cell, ...]
    openness: tuple[bool, bool, bool] | None
    average: Cell | None
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Filled:
    """A table with its rows. footnotes: the n-th is mark n + 1. caption: whose rules our scores follow."""

    table: PaperTable
    rows: tuple[ModelRow, ...]
    footnotes: tuple[str, ...]
    caption: str


def fill(table: PaperTable, runs: Mapping[str, Sequence[Result]]) -> Filled:
    """A table with its published rows first, then a row for each run. runs: results by the run's name."""
    notes = list(table.notes)

    def mark(note: str) -> int:
        if note not in notes:
            notes.append(note)
        return notes.index(note) + 1

    rows = []
    for published in table.rows:
        cells = tuple(Cell(published.scores.get(column.task)) for column in table.columns)
        marks = (mark(f"{published.model}: {published.note}."),) if published.note else ()
        average = Cell(published.average, marks=marks) if table.has_average else None
        rows.append(ModelRow(published.model, False, cells, published.openness, average))
    for name, results in runs.items():
        by_task = _scores(table, results)
        cells = []
        for column in table.columns:
            value, error, remarks = by_task.get(column.task, (None, None, ()))
            cells.append(Cell(value, error, tuple(mark(f"{name}, {column.title}: {remark}") for remark in remarks)))
        # One footnote to the row for all that was not asked: a mark at each would hide the others.
        missing = [column.title for column in table.columns if column.task not in by_task]
        marks = (mark(f"{name}: not asked, or not by this profile: {', '.join(missing)}."),) if missing else ()
        average = _average(name, cells, mark) if table.has_average else None
        rows.append(ModelRow(name, True, tuple(cells), None, average, marks))
    rules = sorted({_rules(result) for results in runs.values() for result in results})
    caption = "; ".join(rules) or "no run of ours"
    return Filled(table, tuple(rows), tuple(notes), caption)


def _rules(result: Result) -> str:
    choice = result.choice
    again = "" if choice.reencode == "none" else f", pictures {choice.reencode}"
    return f"profile {choice.profile}, {choice.reading}{again}"


Score = tuple[float | None, float | None, tuple[str, ...]]
"""Value, standard error, remarks."""


def _scores(table: PaperTable, results: Sequence[Result]) -> dict[str, Score]:
    by_task = {result.task: _score(result) for result in results}
    if table is not ABLATIONS:
        return by_task
    return {domain: _mean(domain, [(task, by_task.get(task)) for task in tasks]) for domain, tasks in DOMAINS.items()}


def _score(result: Result) -> Score:
    value = result.normalized
    remarks = []
    if math.isnan(value) or result.value.note:
        remarks.append(f"{result.value.note or 'no score'}.")
    if result.judge != NO_JUDGE:
        remarks.append(f"judged by {result.judge}.")
    if result.value.unparsed:
        remarks.append(f"{result.value.unparsed:,} of {result.value.items:,} answers could not be read.")
    if result.unreadable:
        remarks.append(f"{result.unreadable:,} pictures could not be read and count as wrong.")
    remarks += [f"left out, {reason}: {count:,}." for reason, count in result.left_out.items()]
    # The error is of the headline score; the normalized one is a multiple of it.
    scale = value / result.value.value if result.value.value else 1.0
    error = result.value.stderr * scale
    return (
        None if math.isnan(value) else value,
        None if math.isnan(error) or math.isnan(value) else error,
        tuple(remarks),
    )


def _mean(domain: str, scores: Sequence[tuple[str, Score | None]]) -> Score:
    """The mean of a domain's scores; none where one is missing."""
    missing = [task for task, score in scores if score is None or score[0] is None]
    if missing:
        return None, None, (f"no score of {', '.join(missing)}.",)
    values = [score[0] for _, score in scores if score is not None and score[0] is not None]
    remarks = tuple(f"{task}: {remark}" for task, score in scores if score is not None for remark in score[2])
    return statistics.fmean(values), _error([score[1] for _, score in scores if score is not None]), remarks


def _error(errors: Sequence[float | None]) -> float | None:
    """Of the mean of scores that are independent; None where one has none, as of a single item."""
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(known) if known and len(known) == len(errors) else None


def _average(name: str, cells: Sequence[Cell], mark: Callable[[str], int]) -> Cell:
    values = [cell.value for cell in cells if cell.value is not None]
    if not values:
        return Cell(None)
    error = _error([cell.stderr for cell in cells if cell.value is not None])
    partial = len(values) < len(cells)
    note = f"{name}: the mean of {len(values)} of {len(cells)} columns, not comparable with a mean of all."
    marks = (mark(note),) if partial else ()
    return Cell(statistics.fmean(values), error, marks)
