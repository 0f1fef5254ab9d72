"""Captions to draw, with what a picture of them must show and a true picture drawn by the world's own program.

Open captions are in six tags, those of GenEval (docs/reference/blip3o.md#image-benchmarks), and leave things free: "a
red star" leaves place and size. Dense ones tell every thing with its place. A place is a cell of the world's 3 x 3
layout, since its language has no relations such as "left of".

What is held out is that of `world.splits`: no train caption or picture shows a held-out pair of color and shape, of
object and place, or names a held-out pair of things; a held-out caption names one. A single noun cannot be held out,
so the held-out split has no captions "single_object".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import PIL.Image

from xgenmm_jax.nano.world import draw, drawings, language, splits, world
from xgenmm_jax.nano.world.splits import POSITIONS, SHAPES, Split
from xgenmm_jax.nano.world.world import BASE_PX, KeyedRandom, Scene, Thing

Tag = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr", "dense"]
TAGS: tuple[Tag, ...] = get_args(Tag)
OPEN_TAGS = TAGS[:6]
DENSE_SHARE = 0.5
"""Of the pairs whose tag is not asked for."""
COUNTS = (2, 3, 4, 5)
_GAP_PX = 3
"""Between the boxes of two things, so that they can be told apart."""
_TRIES_PER_CAPTION = 50


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause of a caption: so many things of one noun, of SHAPES or drawings.OBJECTS. "": of any color, anywhere."""

    noun: str
    count: int = 1
    color: str = ""
    position: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A caption, and the clauses that its picture must meet: these things and no others."""

    caption: str
    tag: Tag
    clauses: tuple[Clause, ...]


def pair(seed_number: int, split: str, tag: str | None = None) -> tuple[str, PIL.Image.Image, Prompt]:
    """A caption, a true picture of it (RGB, 64 x 64) and what it says: a pure function of the arguments.

    split: "train" or "held_out". tag: one of `tags(split)`; None takes dense captions in DENSE_SHARE of the numbers, in
    the others each tag equally often.

    Raises:
        ValueError: no such split, or no captions of this tag in it.
    """
    prompt, scene = described(seed_number, split, tag)
    return prompt.caption, draw.draw(scene), prompt


def described(seed_number: int, split: str, tag: str | None = None) -> tuple[Prompt, Scene]:
    """As `pair`, with the scene in place of its picture."""
    possible = tags(split)
    if tag is not None and tag not in possible:
        raise ValueError(f"drawing: got tag {tag!r} in split {split!r}, wanted one of {', '.join(possible)}.")
    rng = KeyedRandom("drawing", split, seed_number, tag or "")
    if tag is None:
        tag = "dense" if rng.chance(DENSE_SHARE) else rng.pick([one for one in possible if one != "dense"])
    clauses, things = _MAKERS[tag](rng, cast(Split, split))
    scene = Scene((BASE_PX, BASE_PX), world.background(rng), tuple(things))
    if tag == "dense":
        caption = language.dense_caption(scene)
    else:
        caption = language.enumeration([_phrase(one) for one in clauses])
    return Prompt(caption, cast(Tag, tag), tuple(clauses)), scene


def tags(split: str) -> tuple[Tag, ...]:
    """The tags of a split's captions."""
    if split not in get_args(Split):
        raise ValueError(f"drawing: got split {split!r}, wanted 'train' or 'held_out'.")
    return TAGS if split == "train" else TAGS[1:]


def benchmark(split: str, per_tag: int, seed: int = 0) -> list[tuple[Prompt, Scene]]:
    """Prompts by tags with true scenes, no caption twice: `per_tag` of each, or fewer where there are not as many.

    There are 54 of "single_object", 52 and 12 of "colors", train and held-out, 48 held-out ones of "counting".
    """
    chosen = []
    for tag in tags(split):
        distinct: dict[str, tuple[Prompt, Scene]] = {}
        for number in range(per_tag * _TRIES_PER_CAPTION):
            # Far from the numbers that training takes, which are below 2^40.
            prompt, scene = described(((seed + 1) << 40) + number, split, tag)
            distinct.setdefault(prompt.caption, (prompt, scene))
            if len(distinct) == per_tag:
                break
        chosen += distinct.values()
    return chosen


def _phrase(clause: Clause) -> str:
    """`a red star`, `three rings`, `a cat at the top left`."""
    noun = f"{clause.color} {clause.noun}".strip()
    words = language.article(noun) if clause.count == 1 else f"{language.NUMBERS[clause.count]} {language.plural(noun)}"
    return f"{words} {language.at(clause.position)}" if clause.position else words


_Made = tuple[list[Clause], list[Thing]]


def _single_object(rng: KeyedRandom, split: Split) -> _Made:
    noun = _noun(rng)
    return [Clause(noun)], [_thing(rng, noun, split, is_alone=True)]


def _two_object(rng: KeyedRandom, split: Split) -> _Made:
    """Two nouns whose pair is of the split, whichever comes first."""
    while True:
        nouns = [_noun(rng), _noun(rng)]
        if nouns[0] != nouns[1] and splits.word_split(" and ".join(sorted(nouns))) == split:
            break
    return [Clause(noun) for noun in nouns], _apart(lambda: [_thing(rng, noun, "train") for noun in nouns])


def _counting(rng: KeyedRandom, split: Split) -> _Made:
    """Shapes of one color, which every other caption of training names, as does every held-out one."""
    color, shape = rng.pick(splits.combinations(split))
    count = rng.pick(COUNTS)
    named = color if split == "held_out" or rng.chance(0.5) else ""
    return [Clause(shape, count, named)], _apart(
        lambda: [world.shape(rng, color, shape, position) for position in rng.sample(POSITIONS, count)]
    )


def _colors(rng: KeyedRandom, split: Split) -> _Made:
    color, shape = rng.pick(splits.combinations(split))
    return [Clause(shape, color=color)], [world.shape(rng, color, shape, rng.pick(POSITIONS))]


def _position(rng: KeyedRandom, split: Split) -> _Made:
    """A thing somewhere; a held-out one is an object, whose place is held out."""
    if split == "train" and rng.chance(0.5):
        color, shape = rng.pick(splits.combinations("train"))
        thing = world.shape(rng, color, shape, rng.pick(POSITIONS))
    else:
        thing = object_at(rng, *rng.pick(splits.object_positions(split)), is_alone=True)
    return [Clause(thing.name, position=thing.position)], [thing]


def _color_attr(rng: KeyedRandom, split: Split) -> _Made:
    """Two shapes with their colors; of held-out ones the first pair is held out, and the other any."""
    pairs = [rng.pick(splits.combinations(split)), world.combination(rng, split)]
    while pairs[0][1] == pairs[1][1]:
        pairs[1] = world.combination(rng, split)
    pairs = rng.shuffle(pairs)
    clauses = [Clause(shape, color=color) for color, shape in pairs]
    return clauses, _apart(lambda: [world.shape(rng, *pair, rng.pick(POSITIONS)) for pair in pairs])


def _dense(rng: KeyedRandom, split: Split) -> _Made:
    """One thing, or two in three captions of ten; the first is what is held out, in half of them an object."""

    combination = rng.pick(splits.combinations(split))
    object_position = rng.pick(splits.object_positions(split))
    is_shape, is_alone = rng.chance(0.5), rng.chance(0.7)

    def first() -> Thing:
        if is_shape:
            return world.shape(rng, *combination, rng.pick(POSITIONS))
        return object_at(rng, *object_position, is_alone)

    def two() -> list[Thing]:
        # The second's noun is drawn again with the rest: beside an object in the center only shapes find room.
        return [first(), _thing(rng, _other_noun(rng, combination[1] if is_shape else object_position[0]), "train")]

    things = [first()] if is_alone else _apart(two)
    return [Clause(thing.name, 1, thing.color, thing.position) for thing in things], things


_MAKERS: dict[str, Callable[[KeyedRandom, Split], _Made]] = {
    "single_object": _single_object, "two_object": _two_object, "counting": _counting, "colors": _colors,
    "position": _position, "color_attr": _color_attr, "dense": _dense,
}  # fmt: skip


def _noun(rng: KeyedRandom) -> str:
    """A shape or an object, equally often."""
    return rng.pick(SHAPES) if rng.chance(0.5) else rng.pick(drawings.OBJECTS)


def _other_noun(rng: KeyedRandom, noun: str) -> str:
    while (other := _noun(rng)) == noun:
        pass
    return other


def _thing(rng: KeyedRandom, noun: str, split: Split, is_alone: bool = False) -> Thing:
    """One of a noun, of a pair of the split."""
    if noun in SHAPES:
        colors = [color for color in splits.COLORS if splits.combination_split(color, noun) == split]
        return world.shape(rng, rng.pick(colors), noun, rng.pick(POSITIONS))
    positions = [position for position in POSITIONS if splits.object_position_split(noun, position) == split]
    return object_at(rng, noun, rng.pick(positions), is_alone)


def object_at(rng: KeyedRandom, name: str, position: str, is_alone: bool) -> Thing:
    """In a trained style; every other one that is alone in the center is large, as in the world's scenes."""
    is_large = is_alone and position == "center" and rng.chance(0.5)
    size = 2 * (rng.between(16, 22) if is_large else rng.between(13, 15))
    return world.drawing(rng, name, position, rng.pick(splits.styles("train")), size)


def _apart(make: Callable[[], list[Thing]]) -> list[Thing]:
    """The first that have a gap between any two of them."""
    while True:
        things = make()
        if are_apart(things):
            return things


def are_apart(things: Sequence[Thing]) -> bool:
    """Whether there is a gap between any two of them."""
    boxes = [thing.box for thing in things]
    return all(
        a[2] + _GAP_PX <= b[0] or b[2] + _GAP_PX <= a[0] or a[3] + _GAP_PX <= b[1] or b[3] + _GAP_PX <= a[1]
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )
