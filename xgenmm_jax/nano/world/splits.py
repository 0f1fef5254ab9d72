"""What is held out: one function for each property, which all data of the tower and of every stage go by.

"train" data never show a held-out thing, not even as a distractor or in text. "held_out" items hinge on one.
"""

import functools
import hashlib
from typing import Literal

from xgenmm_jax.nano.world import drawings

Split = Literal["train", "held_out"]

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "ring", "diamond")
POSITIONS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
# One that differs from two of the trained ones by a single property (weight, spacing).
HELD_OUT_FONT = "DejaVuSansMono-Bold"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold", HELD_OUT_FONT)


def combination_split(color: str, shape: str) -> Split:
    """12 of the 64 colors with shapes are held out: one or two of each color and of each shape."""
    color_index, offset = COLORS.index(color), (SHAPES.index(shape) - 3 * COLORS.index(color)) % 8
    return "held_out" if offset == 0 or (offset == 5 and color_index % 2 == 0) else "train"


def font_split(font: str) -> Split:
    return "held_out" if font == HELD_OUT_FONT else "train"


def word_split(word: str) -> Split:
    """A fifth of all strings, by a hash that is the same on every machine."""
    return "held_out" if hashlib.blake2b(word.encode(), digest_size=4).digest()[0] < 51 else "train"


def style_split(style: str) -> Split:
    return "held_out" if style == drawings.HELD_OUT_STYLE else "train"


def object_position_split(name: str, position: str) -> Split:
    """A fifth of the (object, position) pairs; never the center, where large objects stand."""
    if position == "center":
        return "train"
    return word_split(f"{name} at {position}")


def object_frame_split(name: str, frame: str) -> Split:
    """A fifth of the pairs of a thing, also a danger, and its frame: "hazard", or the color of a plain one."""
    return word_split(f"{name} in {frame}")


@functools.cache
def _held_out_categories() -> frozenset[str]:
    return frozenset(sorted({category for _, category in drawings.DANGERS})[1::3])


def danger_split(category: str) -> Split:
    """A third of the categories of danger: every second of three in alphabetic order."""
    return "held_out" if category in _held_out_categories() else "train"


@functools.cache
def combinations(split: Split) -> tuple[tuple[str, str], ...]:
    """All (color, shape) of a split."""
    return tuple((c, s) for c in COLORS for s in SHAPES if combination_split(c, s) == split)


@functools.cache
def fonts(split: Split) -> tuple[str, ...]:
    return tuple(font for font in FONTS if font_split(font) == split)


@functools.cache
def styles(split: Split) -> tuple[str, ...]:
    return tuple(style for style in drawings.STYLES if style_split(style) == split)


@functools.cache
def object_positions(split: Split) -> tuple[tuple[str, str], ...]:
    """All (object, position) of a split."""
    return tuple((o, p) for o in drawings.OBJECTS for p in POSITIONS if object_position_split(o, p) == split)


@functools.cache
def objects(split: Split) -> tuple[str, ...]:
    """Names of the objects that have a position in a split; every object has one in training."""
    return tuple(dict.fromkeys(name for name, _ in object_positions(split)))


@functools.cache
def dangers(split: Split) -> tuple[str, ...]:
    """Names of the dangerous things of a split."""
    return tuple(name for name, category in drawings.DANGERS if danger_split(category) == split)
