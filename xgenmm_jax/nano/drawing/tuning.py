"""The drawn world as teacher of a tuning set: captions of training, and pictures in a light that pre-training lacks."""

from collections.abc import Sequence
import functools
import itertools
import re

import numpy as np
import PIL.Image

from xgenmm_jax.curation.tuning_prompts import Excluded, chosen
from xgenmm_jax.nano.drawing import prompts
from xgenmm_jax.nano.drawing.prompts import OPEN_TAGS, Clause
from xgenmm_jax.nano.world import draw, drawings, language, splits, world
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES
from xgenmm_jax.nano.world.world import BASE_PX, KeyedRandom, Scene, Thing

CATEGORIES = {"geneval_train": OPEN_TAGS, "object": ("single_object",), "long": ("dense",)}
"""Names of tars, and the tags whose captions they hold; of "object" there are 54."""
FIRST_NUMBER = 1 << 50
"""Of captions: training takes numbers below 2^40, tests those up to 2^48."""
SHADE = 0.12
"""How much darker the far corner is."""
_TRIES = 200


def captions(category: str, count: int, seed: int) -> Excluded:
    """At most `count` different captions of the training split, so that none names what tests hold out.

    Raises ValueError where there is no such category.
    """
    if category not in CATEGORIES:
        raise ValueError(f"tuning-set: got the category '{category}', wanted one of {', '.join(CATEGORIES)}.")
    tags, first = CATEGORIES[category], FIRST_NUMBER + (seed << 24)
    numbers = itertools.count()
    described = (prompts.described(first + number, "train", tags[number % len(tags)])[0] for number in numbers)
    return chosen((prompt.caption for prompt in described), count, ())


def teacher(texts: Sequence[str]) -> list[PIL.Image.Image | None]:
    """True pictures of captions of the drawn world, 64 x 64, each a function of its caption alone.

    They are lit from the top left, things and background alike. None of a text that the world has no words for, or
    no room.
    """
    return [_picture(text) for text in texts]


def clauses_of(caption: str) -> tuple[Clause, ...] | None:
    """What a caption of `prompts` tells; None where it is none of them.

    Example: "a red star and two cats at the top left" is star, red; and cat, 2, top left.
    """
    clauses = []
    for part in re.split(r", | and ", caption):
        match = _part().fullmatch(part)
        if match is None:
            return None
        count = language.NUMBERS.index(match["count"]) if match["count"] in language.NUMBERS else 1
        noun = next((one for one in _nouns() if match["noun"] == (language.plural(one) if count > 1 else one)), None)
        if noun is None or match["color"] and noun not in SHAPES:
            return None
        position = next((one for one in POSITIONS if match["place"] == language.at(one)), "")
        clauses.append(Clause(noun, count, match["color"] or "", position))
    return tuple(clauses)


@functools.cache
def _nouns() -> tuple[str, ...]:
    return (*SHAPES, *drawings.OBJECTS)


@functools.cache
def _part() -> re.Pattern[str]:
    counts = "|".join(("an", "a", *(language.NUMBERS[count] for count in prompts.COUNTS)))
    nouns = "|".join(word for noun in _nouns() for word in (language.plural(noun), noun))
    where = "|".join(sorted(map(language.at, POSITIONS), key=len, reverse=True))
    return re.compile(
        f"(?P<count>{counts}) (?:(?P<color>{'|'.join(COLORS)}) )?(?P<noun>{nouns})(?: (?P<place>{where}))?"
    )


def _picture(text: str) -> PIL.Image.Image | None:
    clauses = clauses_of(text)
    if clauses is None:
        return None
    rng = KeyedRandom("drawing teacher", text)
    for _ in range(_TRIES):
        things = _things(rng, clauses)
        if things and prompts.are_apart(things):
            return lit(draw.draw(Scene((BASE_PX, BASE_PX), world.background(rng), tuple(things))))
    return None


def _things(rng: KeyedRandom, clauses: Sequence[Clause]) -> list[Thing]:
    """Of the training split, whatever the clauses leave open; empty where it has none."""
    things: list[Thing] = []
    is_alone = len(clauses) == 1 and clauses[0].count == 1
    for clause in clauses:
        is_shape = clause.noun in SHAPES
        # Several of one kind have one color, as in training.
        colors = [one for one in COLORS if is_shape and splits.combination_split(one, clause.noun) == "train"]
        color = clause.color or (rng.pick(colors) if colors else "")
        free = [one for one in POSITIONS if is_shape or splits.object_position_split(clause.noun, one) == "train"]
        positions = [clause.position] if clause.position else rng.sample(free, min(clause.count, len(free)))
        if len(positions) < clause.count:
            return []
        for position in positions:
            if is_shape:
                things.append(world.shape(rng, color, clause.noun, position))
            else:
                things.append(prompts.object_at(rng, clause.noun, position, is_alone))
    return things


def lit(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture as under light from the top left: darker along the diagonal, by SHADE in the far corner."""
    pixels = np.asarray(image, np.float32)
    down, right = (np.linspace(0, 0.5, side, dtype=np.float32) for side in pixels.shape[:2])
    light = 1 - SHADE * (down[:, None] + right[None])
    return PIL.Image.fromarray(np.round(pixels * light[..., None]).astype(np.uint8))
