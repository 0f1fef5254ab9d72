"""Scenes of 64 x 64 pixels by what they are about. In a held-out scene, things[0] is the held-out thing."""

from collections.abc import Sequence

from xgenmm_jax.nano.world import drawings, splits, world
from xgenmm_jax.nano.world.splits import POSITIONS, Split
from xgenmm_jax.nano.world.world import BASE_PX, KeyedRandom, Scene, Thing

SMALL_CAP_PX = (8, 12)
EVEN = (0.39, 0.27, 0.22)
"""Shares of shapes, text and objects that captions and questions use."""
TEXT_HEAVY = (0.30, 0.45, 0.15)
"""For the vision tower: reading is what it learns last."""


def _scene(rng: KeyedRandom, things: Sequence[Thing]) -> Scene:
    return Scene((BASE_PX, BASE_PX), world.background(rng), tuple(things))


def _some_shapes(rng: KeyedRandom, split: Split, positions: Sequence[str], count: int) -> list[Thing]:
    return [world.shape(rng, *world.combination(rng, split), position) for position in rng.sample(positions, count)]


def shapes(rng: KeyedRandom, split: Split, count: int = 0) -> Scene:
    """1 to 6 shapes; in half of the scenes several alike, so that there is something to count."""
    count = count or rng.pick((1, 2, 2, 3, 3, 4, 4, 5, 5, 6))
    first = rng.pick(splits.combinations(split))
    alike = rng.between(1, count) if rng.chance(0.5) else 1
    chosen = [first] * alike
    if alike < count and rng.chance(0.5):
        # The same shape in other colors: "three stars" of which two are red.
        others = [c for c in splits.COLORS if split == "held_out" or splits.combination_split(c, first[1]) == "train"]
        chosen += [(rng.pick(others), first[1]) for _ in range(rng.between(0, min(2, count - alike)))]
    chosen += [world.combination(rng, split) for _ in range(count - len(chosen))]
    positions = rng.sample(POSITIONS, count)
    return _scene(rng, [world.shape(rng, *pair, position) for pair, position in zip(chosen, positions, strict=True)])


def one_shape(rng: KeyedRandom, split: Split, color: str = "", name: str = "") -> Scene:
    """A single shape anywhere."""
    options = [c for c in splits.combinations(split) if color in ("", c[0]) and name in ("", c[1])]
    return _scene(rng, [world.shape(rng, *rng.pick(options), rng.pick(POSITIONS))])


def counted(rng: KeyedRandom, split: Split, count: int) -> Scene:
    """`count` shapes of one combination among 0 to 3 others that differ from it."""
    first = rng.pick(splits.combinations(split))
    positions = rng.sample(POSITIONS, count + rng.between(0, min(3, 7 - count)))
    things = [world.shape(rng, *first, position) for position in positions[:count]]
    for position in positions[count:]:
        pair = first
        while pair == first:
            pair = world.combination(rng, split)
        things.append(world.shape(rng, *pair, position))
    return _scene(rng, things)


def text(rng: KeyedRandom, split: Split) -> Scene:
    """A string and 0 to 2 shapes beside it; sometimes two strings below each other."""
    if rng.chance(0.15):
        height = BASE_PX // 2
        things = [
            world.text(rng, split, (1, 1, BASE_PX - 1, height - 1), (9, 15)),
            world.text(rng, split, (1, height + 1, BASE_PX - 1, BASE_PX - 1), (9, 15)),
        ]
        return _scene(rng, things)
    things = [world.text(rng, split)]
    if rng.chance(0.5):
        free = world.free_positions(things)
        things += _some_shapes(rng, "train", free, min(len(free), rng.between(1, 2)))
    return _scene(rng, things)


def small_text(rng: KeyedRandom, split: Split) -> Scene:
    """1 to 4 strings below each other, 8 to 12 pixels high, as small as on a crop of a page."""
    count = rng.between(1, 4)
    height = BASE_PX // count
    bands = [(1, i * height + 1, BASE_PX - 1, (i + 1) * height - 1) for i in range(count)]
    return _scene(rng, [world.text(rng, split, band, SMALL_CAP_PX) for band in bands])


def objects(rng: KeyedRandom, split: Split, style: str = "") -> Scene:
    """A large object alone, a small one with 0 to 2 shapes, or two small ones.

    Held out is a pair of object and position, so a held-out scene's object is small. style: this one instead of a
    random trained one; in the held-out style any pair will do.
    """
    chosen = style or rng.pick(splits.styles("train"))
    if (split == "train" or style) and rng.chance(0.4):
        name = rng.pick(drawings.OBJECTS)
        return _scene(rng, [world.drawing(rng, name, "center", chosen, 2 * rng.between(16, 22))])
    pairs = splits.object_positions(split)
    if style:
        pairs = splits.object_positions("train") + splits.object_positions("held_out")
    name, position = rng.pick(pairs)
    things = [world.drawing(rng, name, position, chosen, 2 * rng.between(13, 15))]
    free = world.free_positions(things)
    if rng.chance(0.4):
        roomy = _roomy(position)
        other, other_position = rng.pick(splits.object_positions("train"))
        if other != name and other_position in roomy:
            look = rng.pick(splits.styles("train"))
            return _scene(rng, [*things, world.drawing(rng, other, other_position, look, 2 * rng.between(13, 14))])
    if free and rng.chance(0.6):
        things += _some_shapes(rng, "train", free, min(len(free), rng.between(1, 2)))
    return _scene(rng, things)


def _roomy(position: str) -> list[str]:
    """Positions where a second small object does not touch one at `position`: two columns or two rows away."""
    row, column = divmod(POSITIONS.index(position), 3)
    return [p for i, p in enumerate(POSITIONS) if abs(i // 3 - row) == 2 or abs(i % 3 - column) == 2]


def digit(rng: KeyedRandom, split: Split) -> Scene:
    """A handwritten digit and at most one shape."""
    things = [world.digit(rng, split)]
    free = world.free_positions(things)
    if free and rng.chance(0.4):
        things += _some_shapes(rng, "train", free, 1)
    return _scene(rng, things)


def mixed(rng: KeyedRandom, split: Split, shares: tuple[float, float, float] = EVEN) -> Scene:
    """Any of the above. shares: of shapes, text and objects; the rest are digits."""
    kind = rng.chance_value()
    of_shapes, of_text, of_objects = shares
    if kind < of_shapes:
        return shapes(rng, split)
    if kind < of_shapes + of_text:
        return text(rng, split)
    if kind < of_shapes + of_text + of_objects:
        return objects(rng, split)
    return digit(rng, split)
