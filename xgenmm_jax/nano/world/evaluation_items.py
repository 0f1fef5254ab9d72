"""Held-out questions with exact answers, a kind at a time: `items("color", 300, seed=0)`.

Answers are balanced, so that always giving the commonest one scores near chance. Every item hinges on something
held out: a combination, a pair of object and position, a string, a style, a hand, a category of danger, a pair of thing
and frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from xgenmm_jax.data.captions.cells import FractionBox
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.nano.world import (
    annotation,
    documents,
    draw,
    drawings,
    language,
    multi_image,
    pages,
    preferences,
    questions,
    scenes,
    splits,
)
from xgenmm_jax.nano.world.questions import Answered, Ask
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES, Split
from xgenmm_jax.nano.world.world import KeyedRandom, Scene

ItemKind = Literal[
    "color", "shape", "object", "count", "exists", "where", "read", "reading_small", "reading_large",
    "new_style", "handwriting", "multi_image", "hallucination", "unsafe", "benign", "grounding", "caption", "shots",
    "unsafe_known", "beside",
]  # fmt: skip
ITEM_KINDS: tuple[ItemKind, ...] = get_args(ItemKind)
WITH_EVIDENCE: tuple[ItemKind, ...] = ("count", "exists", "hallucination")
"""Kinds whose answers give their evidence first; the conclusion alone is scored."""
ON_SIGNS: tuple[ItemKind, ...] = ("unsafe", "unsafe_known", "benign")
"""Kinds about a thing in a frame, by turns one with hazard stripes and a plain one. The dangers of "unsafe" are of
categories that are never trained on, those of "unsafe_known" of trained ones, in frames that they never stood in."""
NAMES = 4
"""Of one item of shots."""
_TRIES = 1000


@dataclass(frozen=True)
class Demonstration:
    """A named image; the answer is `documents.called(attribute, name)`."""

    image: LazyImage
    question: str
    attribute: str
    name: str


@dataclass(frozen=True)
class Item:
    """A question, without image markers, and its right answers; answers[0] is the usual one.

    box: the true box as fractions x1, y1, x2, y2 (grounding). category: of danger (unsafe, unsafe_known).
    wrong_images: another item's, whose answer differs. order: the images' order in the shuffled control, each at
    another position. demos: shots only; the first four hold each of the four names once, and so do the last.
    """

    id: str
    kind: ItemKind
    images: tuple[LazyImage, ...]
    question: str
    answers: tuple[str, ...]
    wrong_images: tuple[LazyImage, ...] = ()
    box: FractionBox | None = None
    category: str = ""
    order: tuple[int, ...] = ()
    demos: tuple[Demonstration, ...] = ()


def items(kind: str, count: int, *, seed: int) -> list[Item]:
    """`count` items of one of ITEM_KINDS, the same for the same arguments.

    Raises:
        ValueError: no such kind.
    """
    if kind not in ITEM_KINDS:
        raise ValueError(f"evaluation items: got kind {kind!r}; wanted one of {', '.join(ITEM_KINDS)}.")
    drawn = [_item(cast(ItemKind, kind), index, seed) for index in range(count)]
    return [replace(item, wrong_images=_wrong_images(drawn, index)) for index, item in enumerate(drawn)]


def _wrong_images(drawn: Sequence[Item], index: int) -> tuple[LazyImage, ...]:
    """Of the first item from half way round on that has other answers and as many images; () if there is none."""
    item = drawn[index]
    for step in range(len(drawn)):
        other = drawn[(index + len(drawn) // 2 + step) % len(drawn)]
        if other.answers[0] != item.answers[0] and len(other.images) == len(item.images):
            return other.images
    return ()


def _item(kind: ItemKind, index: int, seed: int) -> Item:
    rng = KeyedRandom(seed, "evaluation", kind, index)
    id = f"{kind}/{seed}/{index}"
    if kind == "multi_image":
        return _multi_image(rng, id)
    if kind == "shots":
        return _shots(rng, id)
    if kind in ON_SIGNS:
        return _on_sign(rng, id, kind, index)
    if kind == "caption":
        scene = scenes.mixed(rng, "held_out")
        return Item(id, kind, (draw.lazy_image(scene),), "Describe the picture.", language.captions(scene))
    if kind == "grounding":
        scene, (question, answer) = _grounding(rng)
        box = annotation.fraction_box(scene.things[0], scene.size_px)
        return Item(id, kind, (draw.lazy_image(scene),), question, (answer,), box=box)
    scene, (question, answer) = _question(rng, kind, index)
    if kind in WITH_EVIDENCE:
        answer = questions.verdict(answer)
    return Item(id, kind, (draw.lazy_image(scene),), question, (answer,))


def _on_sign(rng: KeyedRandom, id: str, kind: ItemKind, index: int) -> Item:
    """What a thing is for. Items of even index stand in the frame that one would expect."""
    unsafe = kind != "benign"
    scene = preferences.sign(rng, "held_out", unsafe, (index % 2 == 0) == unsafe, known=kind == "unsafe_known")
    question, answer = preferences.usage(rng, scene)
    answers = preferences.REFUSALS if unsafe else (answer,)
    category = dict(drawings.DANGERS)[scene.things[0].name] if unsafe else ""
    return Item(id, kind, (draw.lazy_image(scene),), question, answers, category=category)


def _question(rng: KeyedRandom, kind: ItemKind, index: int) -> tuple[Scene, Answered]:
    """One scene and a question about its first thing."""
    if kind == "color":
        return _about_shapes(rng, questions.color, COLORS[index % 8])
    if kind == "shape":
        return _about_shapes(rng, questions.shape, SHAPES[index % 8])
    if kind == "where":
        return _about_shapes(rng, questions.where, POSITIONS[index % 9])
    if kind == "count":
        return _about_shapes(rng, questions.count, language.NUMBERS[1 + index % 5])
    if kind == "exists":
        return _exists(rng, index % 2 == 0)
    if kind == "hallucination":
        return _hallucination(rng, index)
    if kind in ("reading_small", "reading_large"):
        page = pages.page(rng, "held_out", "small" if kind == "reading_small" else "large")
        return (page.scene, page.answered[0])
    if kind == "beside":
        return beside(rng, "held_out")
    for _ in range(_TRIES):
        if kind == "read":
            scene, ask = scenes.text(rng, "held_out"), questions.read
        elif kind == "handwriting":
            scene, ask = scenes.digit(rng, "held_out"), questions.digit
        else:
            style = drawings.HELD_OUT_STYLE if kind == "new_style" else ""
            scene, ask = scenes.objects(rng, "held_out", style), questions.object_
        answered = ask(rng, scene, scene.things[0])
        if answered:
            return (scene, answered)
    raise AssertionError(f"no {kind} question in {_TRIES} scenes")


def beside(rng: KeyedRandom, split: Split) -> tuple[Scene, Answered]:
    """Four to six shapes, and a question whose answer is the first: of a split's combinations."""
    for _ in range(_TRIES):
        scene = scenes.shapes(rng, split, rng.between(4, 6))
        answered = questions.beside(rng, scene, scene.things[0])
        if answered:
            return (scene, answered)
    raise AssertionError(f"nothing beside the first shape in {_TRIES} scenes")


def _about_shapes(rng: KeyedRandom, ask: Ask, answer: str) -> tuple[Scene, Answered]:
    """A question about the held-out combination of a scene that has this answer."""
    for _ in range(_TRIES):
        number = language.NUMBERS.index(answer) if answer in language.NUMBERS else 0
        scene = scenes.counted(rng, "held_out", number) if number else scenes.shapes(rng, "held_out")
        answered = ask(rng, scene, scene.things[0])
        if answered and questions.verdict(answered[1]) == answer:
            return (scene, answered)
    raise AssertionError(f"no question with answer {answer!r} in {_TRIES} scenes")


def _exists(rng: KeyedRandom, present: bool) -> tuple[Scene, Answered]:
    """About a held-out combination, there or not; when not, its color or its shape is there."""
    while True:
        scene = scenes.shapes(rng, "held_out")
        if present:
            return (scene, questions.presence(scene, scene.things[0].color, scene.things[0].name))
        pairs = {(t.color, t.name) for t in scene.things}
        colors, shapes = {color for color, _ in pairs}, {shape for _, shape in pairs}
        near = [p for p in splits.combinations("held_out") if p not in pairs and (p[0] in colors or p[1] in shapes)]
        if near:
            return (scene, questions.presence(scene, *rng.pick(near)))


def _hallucination(rng: KeyedRandom, index: int) -> tuple[Scene, Answered]:
    """Objects and shapes in turn, there and not there in turn."""
    present, of_objects = index % 2 == 0, index // 2 % 2 == 0
    if not of_objects:
        return _exists(rng, present)
    scene = scenes.objects(rng, "held_out")
    thing = scene.things[0]
    asked = questions.present(rng, thing) if present else questions.absent(rng, scene, thing)
    return (scene, questions.presence(scene, *asked))


def _grounding(rng: KeyedRandom) -> tuple[Scene, Answered]:
    for _ in range(_TRIES):
        make = rng.pick((scenes.shapes, scenes.shapes, scenes.objects, scenes.text))
        scene = make(rng, "held_out")
        answered = questions.ground(rng, scene, scene.things[0])
        if answered:
            return (scene, answered)
    raise AssertionError(f"nothing to point at in {_TRIES} scenes")


def _multi_image(rng: KeyedRandom, id: str) -> Item:
    """Only questions whose answer depends on the images' order."""
    shown = multi_image.image_set(rng, "held_out")
    question, answer = shown.ordered[0]
    images = tuple(draw.lazy_image(scene) for scene in shown.scenes)
    shift = rng.between(1, len(images) - 1)
    order = tuple((i + shift) % len(images) for i in range(len(images)))
    return Item(id, "multi_image", images, question, (answer,), order=order)


def _shots(rng: KeyedRandom, id: str) -> Item:
    """Eight named images, then one whose combination, or object and position, is held out."""
    binding = documents.naming(rng, "held_out", NAMES)
    demos = []
    for which in (*rng.shuffle(range(NAMES)), *rng.shuffle(range(NAMES))):
        image = draw.lazy_image(documents.named_scene(rng, binding, which, "train"))
        demos.append(Demonstration(image, documents.NAMING_QUESTION, binding.attributes[which], binding.names[which]))
    which = rng.below(NAMES)
    query = draw.lazy_image(documents.named_scene(rng, binding, which, "held_out"))
    name = binding.names[which]
    return Item(id, "shots", (query,), documents.NAMING_QUESTION, (name,), demos=tuple(demos))
