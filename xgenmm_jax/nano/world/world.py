"""Scenes: what stands where, described without drawing.

A scene is a plain value; describing one takes some tens of microseconds, and `draw.draw` paints it when its pixels are
asked for.
Sizes and boxes are in pixels, boxes are (left, top, right, bottom).
"""

from collections.abc import Sequence
from dataclasses import dataclass
import functools
import random
from typing import Literal, TypeVar

from xgenmm_jax.nano.world import draw_text, drawings, splits
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES, Split

T = TypeVar("T")
Box = tuple[int, int, int, int]
Rgb = tuple[int, int, int]
Kind = Literal["shape", "object", "digit", "text", "bar"]

# No 0 and O, 1 and I, 5 and S, 8 and B side by side: nobody can tell them apart at 9 pixels.
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ234679"
PALETTE: dict[str, Rgb] = {
    "red": (220, 30, 35),
    "orange": (250, 135, 10),
    "yellow": (240, 210, 0),
    "green": (35, 160, 60),
    "blue": (35, 85, 225),
    "purple": (130, 40, 165),
    "pink": (255, 130, 190),
    "black": (25, 25, 25),
}
INKS: tuple[Rgb, ...] = ((20, 20, 20), (60, 30, 20), (20, 40, 110), (110, 20, 30), (20, 80, 40), (80, 25, 110))
BASE_PX = 64


class KeyedRandom:
    """Choices from a key of strings and integers.

    Built on `random.Random.random` alone, whose sequence Python promises to keep between versions (it does not
    promise that for `choice` or `sample`), and ten times faster than NumPy's generators for single choices.
    """

    __slots__ = ("chance_value",)

    def __init__(self, *key: str | int):
        self.chance_value = random.Random("/".join(map(str, key))).random

    def chance(self, probability: float) -> bool:
        return self.chance_value() < probability

    def below(self, limit: int) -> int:
        return int(self.chance_value() * limit)

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + int(self.chance_value() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.chance_value() * len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options in random order."""
        pool = list(options)
        for i in range(count):
            j = i + int(self.chance_value() * (len(pool) - i))
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffle(self, options: Sequence[T]) -> list[T]:
        return self.sample(options, len(options))


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in a scene.

    name: shape, object, digit or string. color: "" unless a shape or bar. look: drawing style of an object, font of a
    text, "split/index" of a digit. size: font size in pixels of a text.
    """

    kind: Kind
    name: str
    color: str
    position: str
    box: Box
    look: str = ""
    ink: Rgb = (0, 0, 0)
    size: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """things[0] is what a held-out scene hinges on. frame: "" | "hazard" (striped) | "plain"."""

    size_px: tuple[int, int]
    background: Rgb
    things: tuple[Thing, ...]
    frame: str = ""
    frame_ink: Rgb = (0, 0, 0)


def background(rng: KeyedRandom) -> Rgb:
    """A light tint."""
    light = rng.between(232, 255)
    return (light - rng.below(22), light - rng.below(22), light - rng.below(22))


def position_of(box: Box, size_px: tuple[int, int]) -> str:
    """The cell of the 3 x 3 layout that the center of a box lies in."""
    column = min(2, 3 * (box[0] + box[2]) // (2 * size_px[0]))
    row = min(2, 3 * (box[1] + box[3]) // (2 * size_px[1]))
    return POSITIONS[3 * row + column]


def box_at(
    rng: KeyedRandom, position: str, width: int, height: int, size_px: tuple[int, int] = (BASE_PX, BASE_PX)
) -> Box:
    """A box of width x height pixels around a position's center, a little off at random, inside the image."""
    row, column = divmod(POSITIONS.index(position), 3)
    left = _offset(rng, column, width, size_px[0])
    top = _offset(rng, row, height, size_px[1])
    return (left, top, left + width, top + height)


def _offset(rng: KeyedRandom, cell: int, size: int, extent: int) -> int:
    third = extent / 3
    slack = max(1.0, (third - size) / 2 + 0.5)
    middle = (cell + 0.5) * third + (2 * rng.chance_value() - 1) * slack
    return int(min(max(middle - size / 2, 1), extent - 1 - size) + 0.5)


def free_positions(things: Sequence[Thing], size_px: tuple[int, int] = (BASE_PX, BASE_PX)) -> list[str]:
    """Positions whose cell no thing reaches into."""
    width, height = size_px[0] / 3, size_px[1] / 3
    free = []
    for cell, position in enumerate(POSITIONS):
        left, top = cell % 3 * width + 1, cell // 3 * height + 1
        right, bottom = left + width - 2, top + height - 2
        if all(t.box[2] <= left or t.box[0] >= right or t.box[3] <= top or t.box[1] >= bottom for t in things):
            free.append(position)
    return free


def ink(rng: KeyedRandom, color: str) -> Rgb:
    """A shade of a color."""
    red, green, blue = PALETTE[color]
    return (
        min(255, max(0, red + rng.between(-14, 14))),
        min(255, max(0, green + rng.between(-14, 14))),
        min(255, max(0, blue + rng.between(-14, 14))),
    )


def shape(
    rng: KeyedRandom,
    color: str,
    name: str,
    position: str,
    size_px: tuple[int, int] = (BASE_PX, BASE_PX),
    scale: float = 1.0,
) -> Thing:
    """14 to 20 pixels, times scale."""
    size = int(rng.between(14, 20) * scale)
    return Thing("shape", name, color, position, box_at(rng, position, size, size, size_px), ink=ink(rng, color))


def combination(rng: KeyedRandom, split: Split) -> tuple[str, str]:
    """A (color, shape) that a split may show beside its hinge: held-out scenes show any."""
    if split == "train":
        return rng.pick(splits.combinations("train"))
    return (rng.pick(COLORS), rng.pick(SHAPES))


def word(rng: KeyedRandom, split: Split, length: int = 0, alphabet: str = ALPHABET) -> str:
    """A random string that is in the split: of `length` characters, 0: 1 to 4."""
    length = length or rng.pick((1, 2, 2, 3, 3, 3, 4, 4))
    while True:
        text = "".join(rng.pick(alphabet) for _ in range(length))
        if splits.word_split(text) == split:
            return text


def text(
    rng: KeyedRandom,
    split: Split,
    region: Box = (1, 1, BASE_PX - 1, BASE_PX - 1),
    cap_px: tuple[int, int] = (9, 26),
    size_px: tuple[int, int] = (BASE_PX, BASE_PX),
    string: str = "",
) -> Thing:
    """A string somewhere inside a region, upper-case letters `cap_px` pixels high, less where the width forces it.

    A held-out string may stand in any font.
    """
    string = string or word(rng, split)
    font = rng.pick(splits.fonts("train") if split == "train" else splits.FONTS)
    size = round(rng.between(*cap_px) / 0.73)  # DejaVu's capitals are 0.73 of the font size
    width, height = draw_text.extent(font, size, string)
    while width > region[2] - region[0] or height > region[3] - region[1]:
        size -= 1
        width, height = draw_text.extent(font, size, string)
    left = rng.between(region[0], region[2] - width)
    top = rng.between(region[1], region[3] - height)
    box = (left, top, left + width, top + height)
    return Thing("text", string, "", position_of(box, size_px), box, font, rng.pick(INKS), size)


def digit(rng: KeyedRandom, split: Split) -> Thing:
    """A handwritten digit, 24 to 40 pixels high."""
    index = rng.below(drawings.digit_count(split))
    size = rng.between(24, 40)
    room = BASE_PX - 2 - size
    left, top = 1 + rng.between(0, room), 1 + rng.between(0, room)
    box = (left, top, left + size, top + size)
    label = str(digit_label(split, index))
    return Thing("digit", label, "", position_of(box, (BASE_PX, BASE_PX)), box, f"{split}/{index}", rng.pick(INKS))


@functools.cache
def digit_label(split: Split, index: int) -> int:
    return drawings.digit(split, index)[1]


@functools.cache
def visible_part(name: str, style: str) -> Box:
    """The box of a drawing's visible pixels in its sprite."""
    box = drawings.sprite(name, style).getbbox()
    assert box is not None, f"drawing {name!r} in style {style!r} is empty"
    return box


def drawing(
    rng: KeyedRandom, name: str, position: str, style: str, size: int, size_px: tuple[int, int] = (BASE_PX, BASE_PX)
) -> Thing:
    """An object or a danger, as drawn in a style; its longer side is `size` pixels."""
    left, top, right, bottom = visible_part(name, style)
    longer = max(right - left, bottom - top)
    width, height = max(1, round(size * (right - left) / longer)), max(1, round(size * (bottom - top) / longer))
    return Thing("object", name, "", position, box_at(rng, position, width, height, size_px), style)
