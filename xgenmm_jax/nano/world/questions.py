"""Questions about a scene and their exact answers: a word or two each.

Number and presence are answered with their evidence first, `top left, center: two` and `blue star: no`: a model of this
size learns to name what it sees long before it learns to conclude without naming it.
"""

from collections.abc import Callable, Sequence
import re

from xgenmm_jax.nano.world import drawings, language, splits
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES, Split
from xgenmm_jax.nano.world.world import KeyedRandom, Scene, Thing

Answered = tuple[str, str]
Ask = Callable[[KeyedRandom, Scene, Thing], Answered | None]


def with_evidence(evidence: Sequence[str], verdict: str) -> str:
    """`top left, center: two`; `none: no` without any."""
    return f"{', '.join(evidence) or 'none'}: {verdict}"


def verdict(answer: str) -> str:
    """The conclusion of an answer, without its evidence."""
    return answer.rpartition(": ")[2]


def _only(things: Sequence[Thing], kind: str, name: str = "", color: str = "") -> bool:
    """Whether exactly one thing of this kind, name and color is there."""
    return sum(t.kind == kind and name in ("", t.name) and color in ("", t.color) for t in things) == 1


def reference(scene: Scene, thing: Thing, by_position: bool = False) -> str | None:
    """Words that pick out one thing of a scene: `the star`, `the red star`, `the cat`, `the text`; None if none do.

    by_place: `the shape at the top`, without its name.
    """
    things = scene.things
    if by_position:
        alone = sum(t.position == thing.position for t in things) == 1
        return f"the shape {language.at(thing.position)}" if alone and thing.kind == "shape" else None
    if thing.kind == "shape":
        if _only(things, "shape", thing.name):
            return f"the {thing.name}"
        return f"the {thing.color} {thing.name}" if _only(things, "shape", thing.name, thing.color) else None
    if thing.kind == "object":
        return f"the {thing.name}" if _only(things, "object", thing.name) else None
    return f"the {thing.kind}" if _only(things, thing.kind) else None


def color(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    if thing.kind != "shape":
        return None
    if _only(scene.things, "shape", thing.name) and rng.chance(0.7):
        return (f"What color is the {thing.name}?", thing.color)
    where = reference(scene, thing, by_position=True)
    return (f"What color is {where}?", thing.color) if where else None


def shape(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    if thing.kind != "shape":
        return None
    if _only(scene.things, "shape", color=thing.color) and rng.chance(0.6):
        return (f"What shape is {thing.color}?", thing.name)
    where = reference(scene, thing, by_position=True)
    return (f"What is {where}?", thing.name) if where else None


def object_(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    if thing.kind != "object":
        return None
    if _only(scene.things, "object") and rng.chance(0.7):
        return (rng.pick(("What object is this?", "Which object is in the picture?")), thing.name)
    alone = sum(t.position == thing.position for t in scene.things) == 1
    return (f"What object is {language.at(thing.position)}?", thing.name) if alone else None


def number(scene: Scene, color: str, name: str) -> Answered:
    """Where the shapes of a color and a name are, "" for any, and how many."""
    positions = _positions(scene, color, name)
    words = f"{color} {language.plural(name or 'shape')}".strip()
    return (f"How many {words} are there?", with_evidence(positions, language.NUMBERS[len(positions)]))


def _positions(scene: Scene, color: str, name: str) -> list[str]:
    shapes = [t for t in language.reading_order(scene) if t.kind == "shape"]
    return [t.position for t in shapes if name in ("", t.name) and color in ("", t.color)]


def countable(rng: KeyedRandom, scene: Scene, thing: Thing) -> tuple[str, str]:
    """(color, name), "" for any, that a shape has: of two choices the one that more shapes have.

    Else every other answer would be "one".
    """
    options = rng.sample([("", ""), ("", thing.name), (thing.color, ""), (thing.color, thing.name)], 2)
    return max(options, key=lambda option: len(_positions(scene, *option)))


def count(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    """The number of shapes, of one shape, of one color, or of one combination."""
    return number(scene, *countable(rng, scene, thing)) if thing.kind == "shape" else None


def presence(scene: Scene, color: str, name: str) -> Answered:
    """The thing that is most like a shape, of any color if `color` is "", or like an object; then yes or no.

    Like a shape is what shares its name or its color, like an object is every object; of several equally like it the
    first in reading order.
    """

    def likeness(thing: Thing) -> int:
        if name in SHAPES:
            return (thing.name == name) + (thing.color == color) if thing.kind == "shape" else 0
        return 1 + (thing.name == name) if thing.kind == "object" else 0

    alike = [thing for thing in language.reading_order(scene) if likeness(thing)]
    nearest = max(alike, key=likeness, default=None)
    evidence = [language.noun(nearest)] if nearest else []
    is_there = nearest is not None and nearest.name == name and color in ("", nearest.color)
    question = f"Is there {language.article(f'{color} {name}'.strip())}?"
    return (question, with_evidence(evidence, "yes" if is_there else "no"))


def absent(rng: KeyedRandom, scene: Scene, thing: Thing, split: Split = "train") -> tuple[str, str]:
    """(color, name), "" for any, that is not there but could be: another color or shape of what is, another object."""
    if thing.kind == "object":
        return ("", _not_of(rng, drawings.OBJECTS, {t.name for t in scene.things}))
    pairs = {(t.color, t.name) for t in scene.things if t.kind == "shape"}
    if rng.chance(0.25):
        return ("", _not_of(rng, SHAPES, {name for _, name in pairs}))
    near = [(c, s) for c in COLORS for s in SHAPES if (c == thing.color) != (s == thing.name) and (c, s) not in pairs]
    return rng.pick([pair for pair in near if split == "held_out" or splits.combination_split(*pair) == "train"])


def _not_of(rng: KeyedRandom, names: Sequence[str], present: set[str]) -> str:
    name = rng.pick(names)
    while name in present:
        name = rng.pick(names)
    return name


def present(rng: KeyedRandom, thing: Thing) -> tuple[str, str]:
    """(color, name) of a shape or an object, "" for any color."""
    return ("", thing.name) if thing.kind == "object" or rng.chance(0.25) else (thing.color, thing.name)


def exists(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    """As often yes as no; never about a held-out combination."""
    if thing.kind not in ("shape", "object"):
        return None
    return presence(scene, *(present(rng, thing) if rng.chance(0.5) else absent(rng, scene, thing)))


def where(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    if thing.kind == "object" and max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]) > 30:
        return None  # a large object fills the image
    words = reference(scene, thing)
    return (f"Where is {words}?", thing.position) if words else None


def beside(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    """A shape by one that stands beside it: `What is left of the star?` `red ring`.

    No stage asks it (`tuning_rows.py`): the star's position, the one beside that, and what is there were asked apart.
    """
    if thing.kind != "shape":
        return None
    row, column = divmod(POSITIONS.index(thing.position), 3)
    of_others = []
    for other in scene.things:
        other_row, other_column = divmod(POSITIONS.index(other.position), 3)
        words = reference(scene, other)
        if other.kind == "shape" and words and other_row == row and abs(other_column - column) == 1:
            of_others.append(f"What is {'left' if column < other_column else 'right'} of {words}?")
    return (rng.pick(of_others), language.noun(thing)) if of_others else None


def ground(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    """The box of a thing."""
    words = reference(scene, thing)
    return (f"Where exactly is {words}?", language.box_text(thing.box, scene.size_px)) if words else None


READ = ("What does the text say?", "Read the text.")


def read(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    if thing.kind != "text":
        return None
    if _only(scene.things, "text"):
        return (rng.pick(READ), thing.name)
    upper = min((t for t in scene.things if t.kind == "text"), key=lambda t: t.box[1])
    return (f"What does the {'upper' if thing is upper else 'lower'} text say?", thing.name)


def digit(rng: KeyedRandom, scene: Scene, thing: Thing) -> Answered | None:
    if thing.kind != "digit" or not _only(scene.things, "digit"):
        return None
    return (rng.pick(("What digit is this?", "Which digit is written here?")), thing.name)


def describe(rng: KeyedRandom, scene: Scene) -> Answered:
    if rng.chance(0.5):
        return ("What is in the picture?", language.short_caption(scene))
    return ("Describe the picture.", language.dense_caption(scene))


_LOOKED_UP: dict[str, tuple[Ask, ...]] = {
    "shape": (color, color, shape, shape, where, exists, exists, exists),
    "text": (read, where),
    "object": (object_, where, exists),
    "digit": (digit, where),
}


def lookups(rng: KeyedRandom, scene: Scene, turns: int) -> list[Answered]:
    """Up to `turns` different questions, each about one thing that its name, color or position picks out of several.

    Nothing else of what a model must do is learned as late, and none of it without many of them a step
    (docs/log/language_model.md#without-lookup-every-question-is-answered-at-chance).
    """
    asked: dict[str, str] = {}
    for _ in range(2 * turns):
        if len(asked) == turns:
            break
        thing = rng.pick(scene.things)
        answered = rng.pick(_LOOKED_UP[thing.kind])(rng, scene, thing)
        if answered:
            asked.setdefault(*answered)
    return list(asked.items()) or [describe(rng, scene)]


# Answers that later questions may have again although an earlier turn said them.
_TELL_NOTHING = frozenset(("yes", "no", *language.NUMBERS))
# How often each is tried. Names are asked for often because they cannot be once any other turn has said them.
ASKED_OF: dict[str, tuple[Ask, ...]] = {
    "shape": (color, color, shape, shape, count, count, exists, exists, where, where),
    "text": (read, read, where),
    "object": (object_, object_, object_, object_, exists, where),
    "digit": (digit, digit, where),
}


def conversation(rng: KeyedRandom, scene: Scene, turns: int) -> list[Answered]:
    """Up to `turns` different questions of mixed kinds; a request for a caption, if any, comes last.

    Last, because a caption before them would answer the other questions without the image; for the same reason no
    answer (yes, no and numbers aside) was said in an earlier turn.
    """
    asked: dict[str, str] = {}
    said: set[str] = set()
    presence = 0
    main = scene.things[0]
    for turn in range(3 * turns):
        if len(asked) >= turns:
            break
        # The thing that the scene is about comes first, later turns may ask about anything.
        thing = main if turn == 0 or rng.chance(0.3) else rng.pick(scene.things)
        ask = ground if rng.chance(0.04) else rng.pick(ASKED_OF[thing.kind])
        answered = ask(rng, scene, thing)
        if answered and verdict(answered[1]) in ("yes", "no"):
            # Few things can be affirmed before questions repeat, many can be denied: more of them would tilt to "no".
            presence += 1
            if presence > min(2, len(scene.things)):
                continue
        if answered and answered[0] not in asked and answered[1] not in said:
            asked[answered[0]] = answered[1]
            parts = re.split(r"[,:] ", answered[1])
            words = [word for part in parts if part not in POSITIONS for word in part.split()]
            said |= {*answered[0].rstrip("?.").split(), *parts, *words} - _TELL_NOTHING
    if not asked or rng.chance(0.12):
        asked.setdefault(*describe(rng, scene))
    return list(asked.items())
