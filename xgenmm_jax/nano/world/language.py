"""How things, scenes and boxes are put into words: about two hundred of them, besides strings."""

from collections.abc import Sequence

from xgenmm_jax.nano.world.splits import POSITIONS
from xgenmm_jax.nano.world.world import Box, KeyedRandom, Scene, Thing

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def article(noun: str) -> str:
    """`a cat`, `an apple`."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def at(position: str) -> str:
    """`in the center`, `at the top left`."""
    return "in the center" if position == "center" else f"at the {position}"


def noun(thing: Thing) -> str:
    """What a thing is, without an article: `red star`, `cat`, `digit 7`, `text "K7Q"`."""
    if thing.kind == "shape":
        return f"{thing.color} {thing.name}"
    if thing.kind == "digit":
        return f"digit {thing.name}"
    if thing.kind == "text":
        return f'text "{thing.name}"'
    return f"{thing.color} bar" if thing.kind == "bar" else thing.name


def phrase(thing: Thing) -> str:
    """With its article: `a red star`, `the text "K7Q"`."""
    return f"the {noun(thing)}" if thing.kind in ("digit", "text") else article(noun(thing))


def enumeration(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def reading_order(scene: Scene) -> list[Thing]:
    """Things by position, row by row."""
    return sorted(scene.things, key=lambda t: (POSITIONS.index(t.position), t.box))


def counted(nouns: Sequence[str]) -> list[str]:
    """Equal nouns together, in order of appearance: `["two blue stars", "a red ring"]`."""
    counts: dict[str, int] = {}
    for name in nouns:
        counts[name] = counts.get(name, 0) + 1
    return [article(n) if k == 1 else f"{NUMBERS[k]} {plural(n)}" for n, k in counts.items()]


def short_caption(scene: Scene) -> str:
    """What there is, without positions: `two blue stars, a red ring and the text "K7Q"`."""
    things = reading_order(scene)
    shapes = counted([noun(t) for t in things if t.kind == "shape"])
    return enumeration([*(phrase(t) for t in things if t.kind != "shape"), *shapes])


def dense_caption(scene: Scene) -> str:
    """Every thing with its position: `a red circle at the top left and a cat in the center`."""
    return enumeration([f"{phrase(t)} {at(t.position)}" for t in reading_order(scene)])


def count_caption(scene: Scene) -> str:
    """The number of shapes, then which: `three shapes: two blue stars and a red ring`. Needs shapes only."""
    shapes = [t for t in reading_order(scene) if t.kind == "shape"]
    total = f"{NUMBERS[len(shapes)]} shapes" if len(shapes) > 1 else "one shape"
    return f"{total}: {enumeration(counted([noun(t) for t in shapes]))}"


def caption(rng: KeyedRandom, scene: Scene) -> str:
    """A caption of random density."""
    choice = rng.chance_value()
    if choice < 0.3 and all(t.kind == "shape" for t in scene.things):
        return count_caption(scene)
    return dense_caption(scene) if choice < 0.7 else short_caption(scene)


def captions(scene: Scene) -> tuple[str, ...]:
    """All correct captions of a scene: references for scoring."""
    texts = [dense_caption(scene), short_caption(scene)]
    if all(t.kind == "shape" for t in scene.things):
        texts.append(count_caption(scene))
    return tuple(dict.fromkeys(texts))


def box_text(box: Box, size_px: tuple[int, int]) -> str:
    """Corners as fractions of width and height: `[0.12, 0.30][0.45, 0.60]`, x before y."""
    width, height = size_px
    x1, y1, x2, y2 = box
    return f"[{x1 / width:.2f}, {y1 / height:.2f}][{x2 / width:.2f}, {y2 / height:.2f}]"


def spelled(string: str) -> str:
    """`K 7 Q`."""
    return " ".join(string)
