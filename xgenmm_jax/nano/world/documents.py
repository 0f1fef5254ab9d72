"""Interleaved documents: images between texts, series, in-context questions, and naming by invented words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.nano.world import draw, language, questions, scenes, splits, world
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES, Split
from xgenmm_jax.nano.world.world import BASE_PX, KeyedRandom, Scene

T = TypeVar("T")
Part = str | LazyImage

NONCE = (
    *("dax", "wug", "blick", "toma", "fep", "zorp", "kiki", "bova"),
    *("lorp", "mido", "nax", "pimwit", "rull", "sarn", "tulver", "vem"),
)
NAMING_QUESTION = "What is this called?"
NamedBy = Literal["color", "shape", "object"]


def few_shot(question: str, answer: str) -> str:
    """OpenFlamingo's demonstration: `Question:What is this called? Short answer:red dax`."""
    return f"Question:{question} Short answer:{answer}"


def story(rng: KeyedRandom, split: Split) -> tuple[Part, ...]:
    """2 to 4 images, each with its caption after it."""
    parts: list[Part] = []
    for _ in range(rng.between(2, 4)):
        scene = scenes.mixed(rng, split)
        parts += [draw.lazy_image(scene), language.caption(rng, scene)]
    return tuple(parts)


def series(rng: KeyedRandom, split: Split) -> tuple[Part, ...]:
    """2 to 4 numbered images of shapes, then what a comparison of them shows."""
    counts = rng.sample((1, 2, 3, 4, 5, 6), rng.between(2, 4))
    parts: list[Part] = []
    for i, count in enumerate(counts):
        scene = scenes.shapes(rng, split, count)
        parts += [draw.lazy_image(scene), f"Picture {i + 1}: {language.short_caption(scene)}"]
    most = counts.index(max(counts)) + 1
    fewest = counts.index(min(counts)) + 1
    parts[-1] = f"{parts[-1]}. Picture {most} has the most shapes. Picture {fewest} has the fewest shapes."
    return tuple(parts)


def shown_questions(rng: KeyedRandom, split: Split) -> tuple[Part, ...]:
    """3 to 6 images, each with a question and its answer in the form of demonstrations."""
    parts: list[Part] = []
    for _ in range(rng.between(3, 6)):
        scene = scenes.mixed(rng, split)
        question, answer = questions.conversation(rng, scene, 1)[0]
        parts += [draw.lazy_image(scene), few_shot(question, answer)]
    return tuple(parts)


@dataclass(frozen=True)
class Naming:
    """Invented names bound to attributes for the length of one document.

    by: what decides the name. attributes[i] is called names[i]. fixed: the other attribute of shapes, "": it varies.
    """

    by: NamedBy
    attributes: tuple[str, ...]
    names: tuple[str, ...]
    fixed: str

    def called(self, which: int) -> str:
        return called(self.attributes[which], self.names[which])


def naming(rng: KeyedRandom, split: Split, count: int = 2) -> Naming:
    """A random binding. In half of those of shapes only the deciding attribute varies.

    In a held-out binding the other attribute varies, so that `named_scene` finds held-out combinations.
    """
    by: NamedBy = rng.pick(("color", "color", "shape", "shape", "object"))
    names = tuple(rng.sample(NONCE, count))
    if by == "object":
        return Naming(by, tuple(rng.sample(splits.objects(split), count)), names, "")
    options, others = (COLORS, SHAPES) if by == "color" else (SHAPES, COLORS)
    attributes = tuple(rng.sample(options, count))
    both = [o for o in others if all(splits.combination_split(*_pair(by, a, o)) == "train" for a in attributes)]
    # Held-out images vary, because no shape is held out in two colors and so on.
    fixed = rng.pick(both) if both and split == "train" and rng.chance(0.5) else ""
    return Naming(by, attributes, names, fixed)


def _pair(by: NamedBy, attribute: str, other: str) -> tuple[str, str]:
    return (attribute, other) if by == "color" else (other, attribute)


def named_scene(rng: KeyedRandom, binding: Naming, which: int, split: Split) -> Scene:
    """A scene of one thing that has attribute `which`."""
    attribute = binding.attributes[which]
    if binding.by == "object":
        position = rng.pick([p for p in POSITIONS if splits.object_position_split(attribute, p) == split])
        thing = world.drawing(rng, attribute, position, rng.pick(splits.styles("train")), 2 * rng.between(13, 16))
        return Scene((BASE_PX, BASE_PX), world.background(rng), (thing,))
    color, shape = (attribute, binding.fixed) if binding.by == "color" else (binding.fixed, attribute)
    return scenes.one_shape(rng, split, color, shape)


def called(attribute: str, name: str) -> str:
    """What a thing is called, behind what decides it: `red dax`.

    Without the attribute a model of nano's size learns to copy names and never which one
    (docs/log/in_context_naming.md#naming-without-the-attribute-is-copied-not-looked-up); with a colon between the two
    it learned no more (docs/log/in_context_naming.md#a-small-share-from-the-first-step-prevents-it).
    """
    return f"{attribute} {name}"


def name_in(answer: str) -> str:
    """`dax` of `red dax`, and of `dax` alone."""
    return answer.strip().rpartition(" ")[2]


def names(rng: KeyedRandom, split: Split) -> tuple[Part, ...]:
    """4 to 9 images of things with 2 to 4 names, in any order, each followed by the question what it is called."""
    count = rng.between(2, 4)
    binding = naming(rng, split, count)
    parts: list[Part] = []
    for which in (rng.below(count) for _ in range(rng.between(4, 9))):
        scene = named_scene(rng, binding, which, split)
        parts += [draw.lazy_image(scene), few_shot(NAMING_QUESTION, binding.called(which))]
    return tuple(parts)


def glossary(rng: KeyedRandom, split: Split) -> str:
    """2 to 6 names, each repeated many times behind what decides it: `red dax, blue wug, red dax, green fep`.

    Dozens of names in the room of one demonstration. A language model that learned to look names up in half of these
    looked them up in demonstrations too; an eighth of them from its first step on was too little
    (docs/log/in_context_naming.md#a-late-half-of-glossaries-teaches-naming).
    """
    count = rng.between(2, 6)
    binding = naming(rng, split, count)
    return ", ".join(binding.called(rng.below(count)) for _ in range(rng.between(16, 40)))


def document(rng: KeyedRandom, split: Split) -> tuple[tuple[Part, ...], Literal["", "\n"]]:
    """Any of the above; naming most often, since it alone must be learned from the context.

    With what separates the images' texts: half of the documents of demonstrations have a line for each.
    """
    kinds: Sequence[Callable[[KeyedRandom, Split], tuple[Part, ...]]]
    kinds = (names, names, names, shown_questions, story, series)
    make = rng.pick(kinds)
    lines = make in (names, shown_questions) and rng.chance(0.5)
    return make(rng, split), "\n" if lines else ""
