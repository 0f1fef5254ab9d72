"""The study of drawing as table, findings and plot, from its results (`tools/drawing_study.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
import statistics

from xgenmm_jax.probing.figures import INK, LINES, QUIET, figure, to_image


@dataclass(frozen=True)
class Result:
    """One run of an arm. figures: by the names of FIGURES. flops: of the model in training. seconds: of its steps."""

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


FIGURES = {
    "alignment": Figure("alignment, %"),
    "held_out": Figure("alignment, held-out pairs, %"),
    "valid": Figure("valid single samples, %"),
    "places": Figure("places of 9 over seeds", form=".2f"),
    "distance": Figure("feature distance", -1, ".3f"),
    "understanding": Figure("questions answered, %"),
}
PLOTTED = ("alignment", "valid", "places", "distance")


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
    Finding("flow matching or squared error?", "flow matching draws different images", "flow", "regression", "places"),
    Finding("features or latents?", "features align better", "flow", "latents", "alignment"),
    Finding("features or latents?", "latents have the lowest distance", "latents", "flow", "distance"),
    Finding("sequential or joint?", "sequential is chosen, without a number", "flow", "joint", "alignment"),
    Finding("sequential or joint?", "sequential keeps understanding", "flow", "joint", "understanding"),
)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the runs, 0 of one."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def of_arm(results: Sequence[Result], arm: str, name: str) -> list[float]:
    """A figure of an arm's runs, or their "flops" or "seconds"."""
    runs = [one for one in results if one.arm == arm]
    return [getattr(one, name) if name in ("flops", "seconds") else one.figures[name] for one in runs]


def table(names: Mapping[str, str], results: Sequence[Result], true: Mapping[str, float]) -> list[tuple[str, ...]]:
    """The head, a line an arm (mean ± standard deviation over seeds), and that of true pictures.

    names: of arms, in their order. true: figures of true pictures, where they have one.
    """
    lines = [("", *(one.head for one in FIGURES.values()), "training TFLOP", "minutes of steps", "runs")]
    for arm, name in names.items():
        runs = of_arm(results, arm, "seconds")
        if not runs:
            continue
        cells = [_cell(of_arm(results, arm, figure), one.form) for figure, one in FIGURES.items()]
        flops = [value / 1e12 for value in of_arm(results, arm, "flops")]
        minutes = [seconds / 60 for seconds in runs]
        lines.append((name, *cells, _cell(flops, ".1f"), _cell(minutes, ".1f"), str(len(runs))))
    of_true = [f"{true[name]:{one.form}}" if name in true else "" for name, one in FIGURES.items()]
    lines.append(("true pictures", *of_true, "", "", ""))
    return lines


def _cell(values: Sequence[float], form: str) -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:{form}}" + (f" ± {spread:{form}}" if len(values) > 1 else "")


def findings(names: Mapping[str, str], results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The head, then for each of FINDINGS whose arms were run what the paper says beside what was found."""
    lines = [("question", "the paper", "found", "so")]
    for one in FINDINGS:
        arms, measured = (one.better, one.worse), FIGURES[one.figure]
        both = [of_arm(results, arm, one.figure) for arm in arms]
        if not all(both):
            continue
        cells = [f"{names[arm]} {_cell(values, measured.form)}" for arm, values in zip(arms, both, strict=True)]
        lines.append((one.question, one.paper, f"{measured.head}: {', '.join(cells)}", verdict(*both, measured.sign)))
    return lines


def verdict(better: Sequence[float], worse: Sequence[float], sign: int) -> str:
    """Whether runs differ as said: by more than the two standard deviations together."""
    (first, spread), (second, other) = mean_and_spread(better), mean_and_spread(worse)
    if min(len(better), len(worse)) < 2:
        return "one run, no spread: not judged"
    gain = sign * (first - second)
    if abs(gain) <= spread + other:
        return "not told apart"
    return "as the paper" if gain > 0 else "the other way"


def markdown(lines: Sequence[tuple[str, ...]]) -> str:
    cells = [lines[0], ("---",) * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def plot(names: Mapping[str, str], results: Sequence[Result], true: Mapping[str, float], path: Path) -> None:
    """PLOTTED against training FLOPs and against seconds of steps; bars are the standard deviation over seeds."""
    costs = (("flops", 1e12, "training TFLOP"), ("seconds", 60, "minutes of steps"))
    drawn, axes = figure(13.0, 6.4, rows=len(costs), columns=len(PLOTTED))
    for row, (cost, unit, words) in enumerate(costs):
        for axis, name in zip(axes[row], PLOTTED, strict=True):
            for (arm, label), color in zip(names.items(), LINES, strict=True):
                values = of_arm(results, arm, name)
                if values:
                    x, x_spread = mean_and_spread([value / unit for value in of_arm(results, arm, cost)])
                    y, y_spread = mean_and_spread(values)
                    bars = dict(fmt="o", color=color, capsize=3, markersize=6, linewidth=1.4, clip_on=False)
                    axis.errorbar(x, y, xerr=x_spread, yerr=y_spread, label=label, **bars)
            if name in true:
                axis.axhline(true[name], color=QUIET, linewidth=1, linestyle=":", label="true pictures")
            axis.set_title(FIGURES[name].head, fontsize=10, color=INK)
            axis.set_xlabel(words, fontsize=8, color=INK)
            axis.set_xlim(left=0)
            axis.set_ylim(0, max(axis.get_ylim()[1], 1))
            axis.tick_params(labelsize=8, colors=QUIET, labelcolor=INK)
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    to_image(drawn).save(path, optimize=True)
