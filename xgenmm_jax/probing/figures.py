"""Figures as images that notebooks show and keep small."""

from collections.abc import Sequence
import io
import itertools
from typing import Any

import numpy as np
import PIL.Image

from xgenmm_jax.probing.extra import import_extra

DPI = 72
INK, QUIET = "#1d2333", "#7a8194"
LINES = ("#2f5bd0", "#d05a2f", "#2f9e62", "#8a4bc0")


def figure(width: float, height: float, rows: int = 1, columns: int = 1):
    """A figure of width x height inches and its axes [rows, columns]."""
    drawn = import_extra("matplotlib.figure").Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False)


def to_image(drawn: Any) -> PIL.Image.Image:
    """The figure as an image. In full color: a palette of few turns an orange star beside yellow ones yellow."""
    buffer = io.BytesIO()
    import_extra("matplotlib.backends.backend_agg").FigureCanvasAgg(drawn).print_png(buffer)
    return PIL.Image.open(buffer).convert("RGB")


def show_image(axis, image: PIL.Image.Image | np.ndarray, title: str = "", color: str = INK) -> None:
    """An image without ticks."""
    axis.imshow(np.asarray(image), interpolation="nearest")
    axis.set_title(title, fontsize=9, color=color)
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def curves(
    axis,
    values: dict[str, Sequence[float] | np.ndarray],
    ticks: Sequence[str],
    title: str,
    baselines: Sequence[float] = (),
) -> None:
    """Lines over named ticks, in percent. baselines: of each line, dotted; equal ones are drawn once."""
    for (name, line), color in zip(values.items(), itertools.cycle(LINES), strict=False):
        axis.plot(range(len(line)), 100 * np.asarray(line), marker="o", markersize=3, color=color, label=name)
    levels = dict(zip(baselines, itertools.cycle(LINES), strict=False))
    for number, (level, color) in enumerate(levels.items()):
        color, label = QUIET if len(levels) == 1 else color, "" if number else "commonest label"
        axis.axhline(100 * level, color=color, linewidth=1, linestyle=":", label=label)
    axis.set_ylim(0, 103)
    axis.set_xticks(range(len(ticks)), ticks, rotation=70, fontsize=7)
    axis.tick_params(axis="y", labelsize=7)
    axis.set_title(title, fontsize=9, color=INK)
    axis.legend(fontsize=7, frameon=False)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
