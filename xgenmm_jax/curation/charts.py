"""Bars of the data card as images; the page of samples has them as HTML."""

from collections.abc import Mapping
import io

from xgenmm_jax.curation.extra import import_extra
from xgenmm_jax.curation.makers import CONFIDENCE_BINS

MOST_BARS, LEAST_WIDTH = 24, 4
"""Bars of a chart at most, and the bars that fill its width at least."""
MOST_NAME, MOST_LETTERS = 26, 60
"""Letters of a name, and of all names that stand beside each other."""
MATPLOTLIB = "`pip install matplotlib` installs it"
INK, BAR = "#333333", "#2a6fbb"


def ordered(bars: Mapping[str, int]) -> list[tuple[str, int]]:
    """Bins of numbers by number, names by count; of many names the largest, and the others together.

    Between bins of numbers, "0.50" and "0.65" or "3" and "7", the empty ones are there too.
    """
    if bars and all(name.replace(".", "", 1).isdigit() for name in bars):
        form, step = (".2f", 1 / CONFIDENCE_BINS) if any("." in name for name in bars) else (".0f", 1)
        numbers = [round(float(name) / step) for name in bars]
        names = [f"{number * step:{form}}" for number in range(min(numbers), max(numbers) + 1)]
        return [(name, bars.get(name, 0)) for name in names]
    by_count = sorted(bars.items(), key=lambda bar: (-bar[1], bar[0]))
    if len(by_count) <= MOST_BARS:
        return by_count
    rest = by_count[MOST_BARS - 1 :]
    return [*by_count[: MOST_BARS - 1], (f"{len(rest)} others", sum(count for _, count in rest))]


def check() -> None:
    """Raises ValueError where matplotlib is missing."""
    import_extra("matplotlib", MATPLOTLIB)


def bar_chart(title: str, bars: Mapping[str, int]) -> bytes:
    """A PNG: the same bytes for the same bars. Raises ValueError where matplotlib is missing."""
    figure_of = import_extra("matplotlib.figure", MATPLOTLIB).Figure
    shown = ordered(bars)
    # Not by pyplot, which keeps figures for the process.
    figure = figure_of(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(shown)), [count for _, count in shown], color=BAR)
    names = [name[:MOST_NAME] for name, _ in shown]
    # Turned names end at their bars: centred ones lie over each other.
    tilted = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, names)) > MOST_LETTERS else {}
    axes.set_xticks(range(len(shown)), names, **tilted)
    axes.set_xlim(-0.6, max(len(shown), LEAST_WIDTH) - 0.4)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
