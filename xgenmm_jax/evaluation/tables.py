"""Figures as text and as a table for the terminal."""

from collections.abc import Mapping, Sequence
import math

from rich.table import Table
from rich.text import Text

from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.tasks import suites


def figure(metric: str, value: float) -> str:
    """A fraction in percent, CIDEr and the scores of published benchmarks as they are: `"83.3 %"`, `"1.25"`."""
    if suites.is_benchmark(metric.split("/")[0]):
        return f"{value:.2f}"
    return f"{value:.2f}" if metric.endswith("/cider") else f"{100 * value:.1f} %"


def metrics_table(metrics: Mapping[str, float], caption: str) -> Table:
    """A line for each metric, with a rule between groups; a group is what stands before the first slash."""
    table = Table(caption=caption)
    table.add_column("metric")
    table.add_column("value", justify="right")
    group = None
    for name, value in metrics.items():
        if group is not None and name.split("/")[0] != group:
            table.add_section()
        group = name.split("/")[0]
        table.add_row(Text(name), figure(name, value))  # as Text: brackets in a name are no markup
    return table


def results_table(results: Sequence[Result], title: str) -> Table:
    """A line for each benchmark: its headline score. Results of other rules than the first one's say theirs.

    Below the table: why a score is none, and who judged it, by which prompt.
    """
    one_judge = len({result.judge for result in results}) == 1
    rules = rules_of(results[0], one_judge)
    table = Table(title=Text(f"{title}: {rules}", "italic"), title_justify="left")
    for name in ("benchmark", "score"):
        table.add_column(name)
    for name in ("value", "+-", "items", "unparsed", "unreadable"):
        table.add_column(name, justify="right")
    lines = []
    for result in results:
        other = "" if rules_of(result, one_judge) == rules else f" ({rules_of(result, one_judge)})"
        score = Text(result.headline + other)
        table.add_row(Text(result.title), score, *_figures(result.value), f"{result.unreadable:,}")
        if math.isnan(result.value.value) and result.value.note:
            lines.append(f"{result.title}: {result.value.note}")
        if not one_judge:
            lines.append(f"{result.title}: judge {result.judge}")
    table.caption = Text("\n".join(lines)) if lines else None
    return table


def rules_of(result: Result, with_judge: bool = True) -> str:
    """Whose rules a result follows: "profile paper, careful, judge none"."""
    choice = result.choice
    again = "" if choice.reencode == "none" else f", pictures {choice.reencode}"
    judge = f", judge {result.judge}" if with_judge else ""
    return f"profile {choice.profile}, {choice.reading}{again}{judge}"


def scores_table(result: Result) -> Table:
    """A line for each score of one benchmark."""
    table = Table(title=Text(f"{result.title}: {rules_of(result)}", "italic"), title_justify="left")
    table.add_column("score")
    for name in ("value", "+-", "items", "unparsed"):
        table.add_column(name, justify="right")
    for name, one in result.scores.items():
        style = "bold" if name == result.headline else ""
        label = Text(f"{name} ({one.note})" if one.note else name, style)
        table.add_row(label, *_figures(one))
    if result.unreadable:
        table.caption = f"{result.unreadable:,} pictures could not be read; their answers count as wrong"
    if result.left_out:
        listed = "; ".join(f"left out, {reason}: {count:,}" for reason, count in result.left_out.items())
        table.caption = f"{table.caption}; {listed}" if table.caption else listed
    return table


def number(value: float) -> str:
    """With two digits behind the point; "-" for none."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def _figures(one: Estimate) -> tuple[str, ...]:
    return number(one.value), number(one.stderr), f"{one.items:,}", f"{one.unparsed:,}"
