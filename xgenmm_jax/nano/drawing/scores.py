"""Scores of drawn pictures: by tag, by property, against shuffled captions; and how unlike a caption's pictures are."""

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import NamedTuple

from jaxtyping import UInt8
import numpy as np

from xgenmm_jax.nano.drawing.judge import Verdict, judge, things
from xgenmm_jax.nano.drawing.prompts import OPEN_TAGS, Prompt
from xgenmm_jax.nano.world.world import KeyedRandom

Images = UInt8[np.ndarray, "n 64 64 3"]


class Share(NamedTuple):
    """percent: of `count`; NaN of none. error: its standard error, in percent."""

    percent: float
    error: float
    count: int


@dataclass(frozen=True)
class Scores:
    """tags: correct pictures of each tag. overall: unweighted mean over the open tags there are, as GenEval's; NaN of
    none. valid: pictures of as many recognized things as told. nouns, colors, positions: what is told and is there.
    """

    tags: dict[str, Share]
    overall: float
    valid: Share
    nouns: Share
    colors: Share
    positions: Share


class Diversity(NamedTuple):
    """Of several pictures of one caption. valid, correct: percent. positions: different ones, of nine, of its things in
    correct pictures. all_positions: of all things in all pictures, told or not."""

    valid: float
    correct: float
    positions: int
    all_positions: int


def scores(prompts: Sequence[Prompt], images: Images) -> Scores:
    """Of one picture a prompt, in the prompts' order.

    Raises:
        ValueError: no pictures, or another number of them.
    """
    if not len(prompts) == len(images) > 0:
        raise ValueError(f"drawing: got {len(images)} pictures of {len(prompts)} prompts, wanted one of each.")
    verdicts = [judge(*one) for one in zip(prompts, images, strict=True)]
    tags = {}
    for tag in dict.fromkeys(prompt.tag for prompt in prompts):
        correct = [one.is_correct for prompt, one in zip(prompts, verdicts, strict=True) if prompt.tag == tag]
        tags[tag] = _share(sum(correct), len(correct))
    opened = [share.percent for tag, share in tags.items() if tag in OPEN_TAGS]
    return Scores(
        tags,
        sum(opened) / len(opened) if opened else math.nan,
        _share(sum(one.is_valid for one in verdicts), len(verdicts)),
        *(_property(verdicts, name) for name in ("nouns", "colors", "positions")),
    )


def shuffled(prompts: Sequence[Prompt], seed: int = 0) -> list[Prompt]:
    """The prompts in another order, each at the place of another of its tag: what chance gives for the same pictures.

    A tag's only prompt stays where it is.
    """
    moved = list(prompts)
    for tag in dict.fromkeys(prompt.tag for prompt in prompts):
        rows = [i for i, prompt in enumerate(prompts) if prompt.tag == tag]
        order = KeyedRandom("shuffled", seed, tag).shuffle(rows)
        # One cycle through all, so that none stays.
        for row, other in zip(order, [*order[1:], order[0]], strict=True):
            moved[row] = prompts[other]
    return moved


def diversity(prompt: Prompt, images: Images) -> Diversity:
    """Of pictures of one prompt from several seeds: for captions that leave the place open.

    Raises:
        ValueError: no pictures.
    """
    if not len(images):
        raise ValueError(f"drawing: got no pictures of '{prompt.caption}', wanted some.")
    verdicts = [judge(prompt, image) for image in images]
    correct = [image for image, one in zip(images, verdicts, strict=True) if one.is_correct]
    positions, all_positions = ({seen.position for one in some for seen in things(one)} for some in (correct, images))
    valid = sum(one.is_valid for one in verdicts)
    shares = (100 * count / len(verdicts) for count in (valid, len(correct)))
    return Diversity(*shares, len(positions), len(all_positions))


def _property(verdicts: Sequence[Verdict], name: str) -> Share:
    """Things of all pictures, those of one picture counted as a group in the error."""
    pairs = np.array([getattr(one, name) for one in verdicts], float)
    met, expected = pairs.sum(axis=0)
    if not expected:
        return Share(math.nan, math.nan, 0)
    share = float(met / expected)
    error = math.sqrt(float(np.square(pairs[:, 0] - share * pairs[:, 1]).sum())) / float(expected)
    return Share(100 * share, 100 * error, int(expected))


def _share(met: int, count: int) -> Share:
    share = met / count
    return Share(100 * share, 100 * math.sqrt(share * (1 - share) / count), count)
