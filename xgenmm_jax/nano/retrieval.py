"""Retrieval in the drawn world: held-out images, each with its own caption."""

import numpy as np

from xgenmm_jax.data.records import Caption
from xgenmm_jax.evaluation.tasks.retrieval_sets import Pairs
from xgenmm_jax.nano.sources import Synthetic

TITLE = "drawn world, held out"
IMAGES = 200
"""Of which one is right: recall at 1 of chance is 0.5 %."""
MOST_RECORDS = 20 * IMAGES


def drawn_pairs(count: int = IMAGES, seed: int = 0) -> Pairs:
    """The first held-out captions that differ from all before them, and their images."""
    records = Synthetic("caption", length=MOST_RECORDS, seed=seed, split="held_out").open()
    captions: dict[str, Caption] = {}
    for number in range(MOST_RECORDS):
        record = records.record(number, np.random.default_rng(number))
        assert isinstance(record, Caption)
        captions.setdefault(record.text, record)
        if len(captions) == count:
            break
    images = tuple(record.image for record in captions.values())
    return Pairs(images, tuple(captions), tuple(range(len(images))))
