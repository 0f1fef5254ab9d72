"""Pages and strips larger than a base view: small and large strings, lines, bar charts.

A small string lies inside one crop of 64 x 64 and is 9 to 11 pixels high: legible in its crop, gone once the page is
shrunk to one view. A large one is legible in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from xgenmm_jax.nano.world import draw_text, language, world
from xgenmm_jax.nano.world.questions import READ, Answered
from xgenmm_jax.nano.world.splits import COLORS, Split
from xgenmm_jax.nano.world.world import BASE_PX, Box, KeyedRandom, Scene, Thing

PageKind = Literal["small", "large", "lines", "chart", "strip"]
PAGE_PX = 2 * BASE_PX
SMALL_CAP_PX = (9, 11)
LARGE_CAP_PX = (26, 34)
ORDINALS = ("one", "two", "three", "four")


@dataclass(frozen=True)
class Page:
    """A scene with its caption and all questions that it answers; the first is what the page is about."""

    kind: PageKind
    scene: Scene
    caption: str
    answered: tuple[Answered, ...]


def page(rng: KeyedRandom, split: Split, kind: PageKind | None = None) -> Page:
    """A page of a kind, or of a random one."""
    kind = kind or rng.pick(get_args(PageKind))
    if kind == "lines":
        return _lines(rng, split)
    if kind == "chart":
        return _chart(rng, split)
    if kind == "strip":
        return _strip(rng, split)
    return _one_string(rng, split, kind)


def _tile(column: int, row: int) -> Box:
    return (column * BASE_PX + 2, row * BASE_PX + 2, (column + 1) * BASE_PX - 2, (row + 1) * BASE_PX - 2)


def _shape_in(rng: KeyedRandom, split: Split, region: Box, px: tuple[int, int], size_px: tuple[int, int]) -> Thing:
    color, name = world.combination(rng, split)
    size = rng.between(*px)
    left, top = rng.between(region[0], region[2] - size), rng.between(region[1], region[3] - size)
    box = (left, top, left + size, top + size)
    return Thing("shape", name, color, world.position_of(box, size_px), box, ink=world.ink(rng, color))


def _read_one(rng: KeyedRandom, scene: Scene, kind: PageKind) -> Page:
    asked = [(rng.pick(READ), scene.things[0].name), ("Where is the text?", scene.things[0].position)]
    return Page(kind, scene, language.dense_caption(scene), tuple(asked))


def _one_string(rng: KeyedRandom, split: Split, kind: Literal["small", "large"]) -> Page:
    size_px = (PAGE_PX, PAGE_PX)
    if kind == "small":
        tiles = [_tile(column, row) for row in (0, 1) for column in (0, 1)]
        first, *others = rng.shuffle(tiles)
        things = [world.text(rng, split, first, SMALL_CAP_PX, size_px)]
        things += [_shape_in(rng, "train", tile, (28, 40), size_px) for tile in others[: rng.between(1, 3)]]
    else:
        margin = (3, 3, PAGE_PX - 3, PAGE_PX - 3)
        things = [world.text(rng, split, margin, LARGE_CAP_PX, size_px)]
        free = rng.shuffle(world.free_positions(things, size_px))
        for position in free[: rng.between(1, 3)]:
            things.append(world.shape(rng, *world.combination(rng, "train"), position, size_px, 2.0))
    return _read_one(rng, Scene(size_px, world.background(rng), tuple(things)), kind)


def _strip(rng: KeyedRandom, split: Split) -> Page:
    """Three crops in a row or a column, a small string in one of them."""
    tiles = [_tile(index, 0) for index in range(3)]
    size_px = (3 * BASE_PX, BASE_PX)
    if rng.chance(0.5):
        tiles = [_tile(0, index) for index in range(3)]
        size_px = (BASE_PX, 3 * BASE_PX)
    first, *others = rng.shuffle(tiles)
    things = [world.text(rng, split, first, SMALL_CAP_PX, size_px)]
    things += [_shape_in(rng, "train", tile, (16, 24), size_px) for tile in others[: rng.between(1, 2)]]
    return _read_one(rng, Scene(size_px, world.background(rng), tuple(things)), "strip")


def _lines(rng: KeyedRandom, split: Split) -> Page:
    """2 to 4 strings below each other, none across the border of two crops."""
    size_px = (PAGE_PX, PAGE_PX)
    column = rng.below(2)
    bands = ((4, 32), (34, 62), (66, 94), (96, 124))
    start = rng.below(2)
    count = rng.between(2, 4 - start)
    font, ink, size = "", (0, 0, 0), 0
    things: list[Thing] = []
    for top, bottom in bands[start : start + count]:
        region = (column * BASE_PX + 4, top, (column + 1) * BASE_PX - 4, bottom)
        line = world.text(rng, split, region, SMALL_CAP_PX, size_px)
        if not things:
            font, ink, size = line.look, line.ink, line.size
        # One font, ink and left edge for the whole column, as on a printed page.
        width, height = draw_text.extent(font, size, line.name)
        box = (region[0], line.box[1], region[0] + width, line.box[1] + height)
        if box[3] > bottom:
            box = (box[0], bottom - height, box[2], bottom)
        things.append(Thing("text", line.name, "", world.position_of(box, size_px), box, font, ink, size))
    scene = Scene(size_px, world.background(rng), tuple(things))
    asked = [(f"What is on line {ORDINALS[i]}?", t.name) for i, t in enumerate(things)]
    asked.append(("How many lines are there?", language.NUMBERS[count]))
    quoted = [f'"{t.name}"' for t in things]
    return Page("lines", scene, f"{ORDINALS[count - 1]} lines: {', '.join(quoted)}", tuple(rng.shuffle(asked)))


def _chart(rng: KeyedRandom, split: Split) -> Page:
    """2 to 4 bars, each with its value above it, high in proportion."""
    size_px = (PAGE_PX, PAGE_PX)
    count = rng.between(2, 4)
    middles = sorted(rng.sample((17, 47, 81, 111), count))
    things: list[Thing] = []
    heights: set[int] = set()
    for color, middle in zip(rng.sample(COLORS, count), middles, strict=True):
        value = _value(rng, split)
        while int(value) in heights:
            value = _value(rng, split)
        heights.add(int(value))
        top = PAGE_PX - 8 - int(value)
        label = draw_text.extent("DejaVuSans", 13, value)
        # Nudged off the border of two crops, so that one crop holds the whole number.
        if top - 3 - label[1] < BASE_PX < top - 1:
            top = BASE_PX - 1 if top < BASE_PX + 5 else BASE_PX + label[1] + 4
        box = (middle - 11, top, middle + 11, PAGE_PX - 8)
        left = middle - label[0] // 2
        label_box = (left, top - 3 - label[1], left + label[0], top - 3)
        things.append(Thing("bar", value, color, world.position_of(box, size_px), box, ink=world.ink(rng, color)))
        position = world.position_of(label_box, size_px)
        things.append(Thing("text", value, "", position, label_box, "DejaVuSans", (20, 20, 20), 13))
    scene = Scene(size_px, world.background(rng), tuple(things))
    bars = things[::2]
    asked = [(f"What is the value of the {t.color} bar?", t.name) for t in bars]
    asked.append(("Which bar is the highest?", max(bars, key=lambda t: int(t.name)).color))
    asked.append(("How many bars are there?", language.NUMBERS[count]))
    caption = "a chart with " + language.enumeration([f"{language.article(t.color)} bar of {t.name}" for t in bars])
    return Page("chart", scene, caption, tuple(rng.shuffle(asked)))


def _value(rng: KeyedRandom, split: Split) -> str:
    """Two digits of the alphabet whose string is in the split."""
    return world.word(rng, split, 2, "234679")


def strings(scene: Scene) -> Sequence[Thing]:
    """The texts of a scene from top to bottom, then left to right."""
    return sorted((t for t in scene.things if t.kind == "text"), key=lambda t: (t.box[1], t.box[0]))
