"""BLIP-3 beside BLIP-2 as tables, differences and plot, from the results of `tools/connector_study.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools import study_table
from tools.study_table import Figure, Result, mean_and_spread, of_arm, verdict
from xgenmm_jax.probing.figures import LINES, figure, to_image

Budget = Literal["samples", "flops"]
Results = Mapping[Budget, Sequence[Result]]
BUDGETS: dict[Budget, str] = {"samples": "equal samples", "flops": "equal FLOPs"}
MARKERS: dict[Budget, str] = {"samples": "o", "flops": "s"}
NAMES = {
    "blip2": "A BLIP-2: Q-Former with its first stage, decoder frozen",
    "qformer": "B Q-Former without first stage, decoder frozen",
    "resampler": "C resampler, decoder frozen",
    "blip3": "D BLIP-3: resampler, decoder trained",
    "qformer_trained": "E A's Q-Former, decoder trained",
    "blip3_documents": "D+ D with documents, at any resolution",
}
COLORS = (*LINES, "#b58a00", "#3c4658")
FIGURES = {
    "questions": Figure("questions, %"),
    "read": Figure("of these strings read, %"),
    "captions": Figure("captions, CIDEr"),
    "boxes": Figure("boxes, IoU %"),
    "small_text": Figure("small text on pages, %"),
    "several": Figure("several images, %"),
    "samples": Figure("samples", form=",.0f"),
}
JUDGED = tuple(name for name in FIGURES if name != "samples")
PLOTTED = ("questions", "captions", "boxes", "several")


@dataclass(frozen=True)
class Comparison:
    """What the difference of two arms tells: first over second."""

    question: str
    first: str
    second: str

    @property
    def arms(self) -> str:
        """`A - B`."""
        return " - ".join(NAMES[arm].split()[0] for arm in (self.first, self.second))


COMPARISONS = (
    Comparison("the first stage", "blip2", "qformer"),
    Comparison("Q-Former or resampler, decoder frozen", "qformer", "resampler"),
    Comparison("training the decoder, resampler", "blip3", "resampler"),
    Comparison("training the decoder, Q-Former", "qformer_trained", "blip2"),
    Comparison("connector and losses, decoder trained", "blip3", "qformer_trained"),
    Comparison("the systems", "blip3", "blip2"),
    Comparison("documents, any resolution", "blip3_documents", "blip3"),
)


def table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The head and a line an arm, mean ± standard deviation over seeds."""
    return [study_table.head(FIGURES), *study_table.arm_lines(NAMES, results, FIGURES)]


def differences(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The head, then for each of COMPARISONS whose arms were run the difference of means and whether it is told.

    Example: `+3.1 more`, `-2.0 less`, `+0.4 not told apart`, `+1.0` of single runs.
    """
    lines = [("what differs", "arms", *(FIGURES[name].head for name in JUDGED))]
    for one in COMPARISONS:
        pairs = {name: tuple(of_arm(results, arm, name) for arm in (one.first, one.second)) for name in JUDGED}
        if all(all(pair) for pair in pairs.values()):
            lines.append((one.question, one.arms, *(_difference(*pair) for pair in pairs.values())))
    return lines


def _difference(first: Sequence[float], second: Sequence[float]) -> str:
    gain = mean_and_spread(first)[0] - mean_and_spread(second)[0]
    if min(len(first), len(second)) < 2:
        return f"{gain:+.1f}"
    return f"{gain:+.1f} {verdict(first, second, 1, ('more', 'less'))}"


def sections(results: Results) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Title and lines of each table that has some."""
    found = []
    for budget, words in BUDGETS.items():
        if results.get(budget):
            found.append((f"Arms at {words}", table(results[budget])))
            found.append((f"Differences at {words}", differences(results[budget])))
    return [(title, lines) for title, lines in found if len(lines) > 1]


def plot(results: Results, path: Path) -> None:
    """PLOTTED against training FLOPs: circles at equal samples, squares at equal FLOPs; bars as in `study_table`."""
    drawn, axes = figure(13.0, 4.2, columns=len(PLOTTED))
    for axis, name in zip(axes[0], PLOTTED, strict=True):
        for budget in BUDGETS:
            arms = {arm: (_label(arm, budget), color) for arm, color in zip(NAMES, COLORS, strict=True)}
            study_table.points(axis, arms, results.get(budget, ()), name, "flops", MARKERS[budget])
        study_table.finish_axis(axis, FIGURES[name], "flops")
    # A column an arm: both its budgets, one below the other.
    handle_of = {label: handle for handle, label in zip(*axes[0][0].get_legend_handles_labels(), strict=True)}
    labels = [_label(arm, budget) for arm in NAMES for budget in BUDGETS if _label(arm, budget) in handle_of]
    handles = [handle_of[label] for label in labels]
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(NAMES), fontsize=9, frameon=False)
    to_image(drawn).save(path, optimize=True)


def _label(arm: str, budget: Budget) -> str:
    """`A, equal samples`."""
    return f"{NAMES[arm].split()[0]}, {BUDGETS[budget]}"
