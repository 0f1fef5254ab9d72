"""Results of several arms over several seeds as lines of a table, verdicts and points with bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import statistics

import rich.console
import rich.table

from xgenmm_jax.probing.figures import INK, QUIET

COSTS = {"flops": (1e12, "training TFLOP"), "seconds": (60, "minutes of steps")}
"""Unit and words of what a run costs."""


@dataclass(frozen=True)
class Result:
    """One run of an arm. figures: by their names. flops: of the model in training. seconds: of its steps."""

    arm: str
    seed: int
    figures: dict[str, float]
    flops: float
    seconds: float


@dataclass(frozen=True)
class Figure:
    """What is measured. sign: 1 where more is better, -1 where less is. form: of a number."""

    head: str
    sign: int = 1
    form: str = ".1f"


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the runs, 0 of one."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def of_arm(results: Sequence[Result], arm: str, name: str) -> list[float]:
    """A figure of an arm's runs that have it, or their "flops" or "seconds"."""
    runs = [one for one in results if one.arm == arm]
    if name in COSTS:
        return [getattr(one, name) for one in runs]
    return [one.figures[name] for one in runs if name in one.figures]


def cell(values: Sequence[float], form: str) -> str:
    """`41.0 ± 1.4`; of one run without its spread, of none empty."""
    if not values:
        return ""
    mean, spread = mean_and_spread(values)
    return f"{mean:{form}}" + (f" ± {spread:{form}}" if len(values) > 1 else "")


def head(figures: Mapping[str, Figure]) -> tuple[str, ...]:
    return ("", *(one.head for one in figures.values()), *(words for _, words in COSTS.values()), "runs")


def arm_lines(
    names: Mapping[str, str], results: Sequence[Result], figures: Mapping[str, Figure]
) -> list[tuple[str, ...]]:
    """A line an arm that has runs, mean ± standard deviation over seeds. names: of arms, in their order."""
    lines = []
    for arm, name in names.items():
        runs = of_arm(results, arm, "seconds")
        if runs:
            cells = [cell(of_arm(results, arm, figure), one.form) for figure, one in figures.items()]
            costs = [cell([v / unit for v in of_arm(results, arm, cost)], ".1f") for cost, (unit, _) in COSTS.items()]
            lines.append((name, *cells, *costs, str(len(runs))))
    return lines


def verdict(
    better: Sequence[float],
    worse: Sequence[float],
    sign: int,
    words: tuple[str, str] = ("as the paper", "the other way"),
) -> str:
    """Whether runs differ as said: by more than the two standard deviations together. words: where they do, or not."""
    (first, spread), (second, other) = mean_and_spread(better), mean_and_spread(worse)
    if min(len(better), len(worse)) < 2:
        return "one run, no spread: not judged"
    gain = sign * (first - second)
    if abs(gain) <= spread + other:
        return "not told apart"
    return words[0] if gain > 0 else words[1]


def markdown(lines: Sequence[tuple[str, ...]]) -> str:
    cells = [lines[0], ("---",) * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def show(title: str, lines: Sequence[tuple[str, ...]], console: rich.console.Console) -> None:
    """Prints a table whose first line is its head."""
    shown = rich.table.Table(*lines[0], title=title)
    for line in lines[1:]:
        shown.add_row(*line)
    console.print(shown)


def points(
    axis, arms: Mapping[str, tuple[str, str]], results: Sequence[Result], name: str, cost: str, marker: str = "o"
) -> None:
    """A point an arm, a figure over what its runs cost; bars are the standard deviation. arms: label and color."""
    unit, _ = COSTS[cost]
    for arm, (label, color) in arms.items():
        values = of_arm(results, arm, name)
        if values:
            x, x_spread = mean_and_spread([value / unit for value in of_arm(results, arm, cost)])
            y, y_spread = mean_and_spread(values)
            bars = dict(fmt=marker, color=color, capsize=3, markersize=6, linewidth=1.4, clip_on=False)
            axis.errorbar(x, y, xerr=x_spread, yerr=y_spread, label=label, **bars)


def finish_axis(axis, figure: Figure, cost: str) -> None:
    """Title, words of the cost, both axes from 0."""
    axis.set_title(figure.head, fontsize=10, color=INK)
    axis.set_xlabel(COSTS[cost][1], fontsize=8, color=INK)
    axis.set_xlim(left=0)
    axis.set_ylim(0, max(axis.get_ylim()[1], 1))
    axis.tick_params(labelsize=8, colors=QUIET, labelcolor=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
