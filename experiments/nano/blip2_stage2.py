"""BLIP-2's second stage at nano: does a language model that stays as it is understand queries that were taught to read?

Paper: arXiv 2301.12597, section 3.3 (its stage at full size: experiments/blip2/stage2.py).
Command: xgenmm train experiments/nano/blip2_stage2.py --workdir runs/demo/blip2_stage2
Hardware: 2 CPU cores.
Hours: about 0.1.
Expected: no number of the paper's.

Rows, samples, order and optimizer are those of nano's stage 1; the connector is a Q-Former, and the decoder is frozen.
"""

from dataclasses import replace

from experiments.nano import stage1
from xgenmm_jax.models import sizes
from xgenmm_jax.nano.starting_weights import DECODER, VISION
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    base = stage1.config()
    return replace(
        base,
        name="nano/blip2_stage2",
        model=replace(base.model, connector=sizes.NANO_QFORMER),
        initialize=Initialize(
            vision=VISION, decoder=DECODER, connector="runs/demo/blip2_stage1", fresh=("connector/projection",)
        ),
        freeze=("vision", "decoder"),
    )
