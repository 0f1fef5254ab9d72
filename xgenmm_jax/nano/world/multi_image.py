"""Questions that only two or three images together answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from xgenmm_jax.nano.world import language, scenes, splits, world
from xgenmm_jax.nano.world.questions import Answered
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES, Split
from xgenmm_jax.nano.world.world import BASE_PX, KeyedRandom, Scene, Thing

SetKind = Literal["shapes", "counts", "objects", "texts"]


@dataclass(frozen=True)
class ImageSet:
    """Scenes to be shown together. ordered: questions whose answer depends on the order; unordered: the others."""

    scenes: tuple[Scene, ...]
    ordered: tuple[Answered, ...]
    unordered: tuple[Answered, ...]


def image_set(rng: KeyedRandom, split: Split, kind: SetKind | None = None) -> ImageSet:
    """2 or 3 scenes and, in random order, the questions about them."""
    kind = kind or rng.pick(get_args(SetKind))
    count = rng.between(2, 3)
    if kind == "shapes":
        chosen = _shapes(rng, split, count)
    elif kind == "counts":
        chosen = _counts(rng, split, count)
    elif kind == "objects":
        chosen = _objects(rng, split, count)
    else:
        chosen = _texts(rng, split, count)
    return ImageSet(chosen.scenes, tuple(rng.shuffle(chosen.ordered)), tuple(rng.shuffle(chosen.unordered)))


def _image(index: int) -> str:
    return f"picture {index + 1}"


def _shapes(rng: KeyedRandom, split: Split, count: int) -> ImageSet:
    """One shape each. Two images often share color or shape."""
    pairs = [rng.pick(splits.combinations(split))]
    while len(pairs) < count:
        options = [p for p in splits.combinations(split) if p not in pairs]
        choice = rng.chance_value()
        if choice < 0.7:
            which = 0 if choice < 0.35 else 1
            options = [p for p in options if p[which] == pairs[0][which]] or options
        pairs.append(rng.pick(options))
    things = [world.shape(rng, color, shape, rng.pick(POSITIONS)) for color, shape in rng.shuffle(pairs)]
    ordered = []
    for i, thing in enumerate(things):
        ordered.append((f"What color is the shape in {_image(i)}?", thing.color))
        ordered.append((f"What shape is in {_image(i)}?", thing.name))
        ordered.append((f"Where is the shape in {_image(i)}?", thing.position))
        if sum(t.name == thing.name for t in things) == 1:
            ordered.append((f"Which picture shows {language.article(thing.name)}?", _image(i)))
        if sum(t.color == thing.color for t in things) == 1:
            ordered.append((f"Which picture shows something {thing.color}?", _image(i)))
    unordered: list[Answered] = []
    if count == 2:
        unordered.append(("Do both pictures show the same color?", _yes(things[0].color == things[1].color)))
        unordered.append(("Do both pictures show the same shape?", _yes(things[0].name == things[1].name)))
    return ImageSet(_alone(rng, things), tuple(ordered), tuple(unordered))


def _alone(rng: KeyedRandom, things: Sequence[Thing]) -> tuple[Scene, ...]:
    """A scene for each thing."""
    return tuple(Scene((BASE_PX, BASE_PX), world.background(rng), (thing,)) for thing in things)


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def _counts(rng: KeyedRandom, split: Split, count: int) -> ImageSet:
    numbers = rng.sample((1, 2, 3, 4, 5, 6), count)
    shown = tuple(scenes.shapes(rng, split, n) for n in numbers)
    ordered = [(f"How many shapes are in {_image(i)}?", language.NUMBERS[n]) for i, n in enumerate(numbers)]
    ordered += [
        ("Which picture has the most shapes?", _image(numbers.index(max(numbers)))),
        ("Which picture has the fewest shapes?", _image(numbers.index(min(numbers)))),
    ]
    for shape in (*COLORS, *SHAPES):
        having = [i for i, s in enumerate(shown) if any(shape in (t.color, t.name) for t in s.things)]
        if len(having) == 1:
            what = f"something {shape}" if shape in COLORS else language.article(shape)
            ordered.append((f"Which picture shows {what}?", _image(having[0])))
    return ImageSet(shown, tuple(ordered), ())


def _objects(rng: KeyedRandom, split: Split, count: int) -> ImageSet:
    """One object each; in half of the pairs of images the same one, in another drawing."""
    style = rng.pick(splits.styles("train"))
    names = rng.sample(splits.objects(split), count)
    if count == 2 and rng.chance(0.3):
        names[1] = names[0]
    things = []
    for name in names:
        positions = [p for p in POSITIONS if splits.object_position_split(name, p) == split]
        position = rng.pick(positions)
        things.append(world.drawing(rng, name, position, style, 2 * rng.between(13, 15)))
        style = rng.pick(splits.styles("train"))
    ordered: list[Answered] = []
    for i, name in enumerate(names):
        ordered.append((f"What object is in {_image(i)}?", name))
        ordered.append((f"Where is the object in {_image(i)}?", things[i].position))
        if names.count(name) == 1:
            ordered += [(f"Which picture shows {language.article(name)}?", _image(i))] * 2
    unordered: list[Answered] = []
    if count == 2:
        unordered.append(("Do both pictures show the same object?", _yes(names[0] == names[1])))
    return ImageSet(_alone(rng, things), tuple(ordered), tuple(unordered))


def _texts(rng: KeyedRandom, split: Split, count: int) -> ImageSet:
    words: list[str] = []
    while len(words) < count:
        string = world.word(rng, split)
        if string not in words:
            words.append(string)
    things = [world.text(rng, split, string=string) for string in words]
    ordered: list[Answered] = []
    for i, string in enumerate(words):
        ordered.append((f"What does the text in {_image(i)} say?", string))
        ordered.append((f"In which picture is the text {string}?", _image(i)))
    return ImageSet(_alone(rng, things), tuple(ordered), ())


def conversation(rng: KeyedRandom, images: ImageSet, turns: int) -> list[Answered]:
    """Different questions about one set, the unordered kind a fifth of the time.

    No question gives away, or is given away by, an earlier turn's word: `7C6` in image 1, then where `7C6` stands.
    """
    asked: dict[str, str] = {}
    said: set[str] = set()
    ordered, unordered = list(images.ordered), list(images.unordered)
    while len(asked) < turns and ordered:
        options = unordered if unordered and rng.chance(0.2) else ordered
        question, answer = options.pop()
        words = {question.rstrip("?").split()[-1], answer} - {"1", "2", "3", "say", "shapes", "yes", "no"}
        words = {word for word in words if not word.startswith("picture")}
        if not words & said:
            asked[question] = answer
            said |= words
    return list(asked.items())
