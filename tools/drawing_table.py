"""The study of drawing as table, findings and plot, from its results (`tools/drawing_study.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import study_table
from tools.study_table import COSTS, Figure, Result, cell, of_arm, verdict
from xgenmm_jax.probing.figures import LINES, QUIET, figure, to_image

FIGURES = {
    "alignment": Figure("alignment, %"),
    "held_out": Figure("alignment, held-out pairs, %"),
    "colors": Figure("colors told, %"),
    "positions": Figure("places told, %"),
    "nouns": Figure("nouns told, %"),
    "valid": Figure("valid single samples, %"),
    "places": Figure("places of 9 in right pictures", form=".2f"),
    "all_places": Figure("places of 9 in all pictures", form=".2f"),
    "distance": Figure("feature distance", -1, ".3f"),
    "understanding": Figure("questions answered, %"),
}
PLOTTED = ("alignment", "colors", "valid", "all_places", "distance")


@dataclass(frozen=True)
class Finding:
    """A question of the paper. better, worse: arms, and by which figure the paper has one above the other."""

    question: str
    paper: str
    better: str
    worse: str
    figure: str


FINDINGS = (
    Finding("flow matching or squared error?", "flow matching aligns better", "flow", "regression", "alignment"),
    Finding("flow matching or squared error?", "flow matching aligns better", "flow", "regression", "colors"),
    Finding("flow matching or squared error?", "flow matching draws different images", "flow", "regression", "places"),
    Finding(
        "flow matching or squared error?", "flow matching draws different images", "flow", "regression", "all_places"
    ),
    Finding("features or latents?", "features align better", "flow", "latents", "alignment"),
    Finding("features or latents?", "features align better", "flow", "latents", "colors"),
    Finding("features or latents?", "latents have the lowest distance", "latents", "flow", "distance"),
    Finding("sequential or joint?", "sequential is chosen, without a number", "flow", "joint", "alignment"),
    Finding("sequential or joint?", "sequential is chosen, without a number", "flow", "joint", "colors"),
    Finding("sequential or joint?", "sequential keeps understanding", "flow", "joint", "understanding"),
)


def table(names: Mapping[str, str], results: Sequence[Result], true: Mapping[str, float]) -> list[tuple[str, ...]]:
    """The head, a line an arm (mean ± standard deviation over seeds), and that of true pictures.

    names: of arms, in their order. true: figures of true pictures, where they have one.
    """
    of_true = [f"{true[name]:{one.form}}" if name in true else "" for name, one in FIGURES.items()]
    lines = [study_table.head(FIGURES), *study_table.arm_lines(names, results, FIGURES)]
    return [*lines, ("true pictures", *of_true, "", "", "")]


def findings(names: Mapping[str, str], results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The head, then for each of FINDINGS whose arms were run what the paper says beside what was found."""
    lines = [("question", "the paper", "found", "so")]
    for one in FINDINGS:
        arms, measured = (one.better, one.worse), FIGURES[one.figure]
        both = [of_arm(results, arm, one.figure) for arm in arms]
        if not all(both):
            continue
        cells = [f"{names[arm]} {cell(values, measured.form)}" for arm, values in zip(arms, both, strict=True)]
        lines.append((one.question, one.paper, f"{measured.head}: {', '.join(cells)}", verdict(*both, measured.sign)))
    return lines


def plot(names: Mapping[str, str], results: Sequence[Result], true: Mapping[str, float], path: Path) -> None:
    """PLOTTED against training FLOPs and against seconds of steps; bars are the standard deviation over seeds."""
    drawn, axes = figure(16.0, 6.4, rows=len(COSTS), columns=len(PLOTTED))
    arms = {arm: (label, color) for (arm, label), color in zip(names.items(), LINES, strict=True)}
    for row, cost in enumerate(COSTS):
        for axis, name in zip(axes[row], PLOTTED, strict=True):
            study_table.points(axis, arms, results, name, cost)
            if name in true:
                axis.axhline(true[name], color=QUIET, linewidth=1, linestyle=":", label="true pictures")
            study_table.finish_axis(axis, FIGURES[name], cost)
    handles, labels = axes[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    to_image(drawn).save(path, optimize=True)
