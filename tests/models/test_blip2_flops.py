"""FLOPs of BLIP-2's first stage against the compiler's count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models import blip2, flops
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.blip2_flops import stage1_flops
from xgenmm_jax.models.qformer import QFormerConfig, QFormerText
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.objectives.caption_rows import CaptionBatch
from xgenmm_jax.training.objectives.query_losses import Negatives
from xgenmm_jax.training.objectives.query_pretraining import QueryPretraining

MODEL = Blip2Config(
    ViTConfig(image_size_px=32, patch_px=8, width=96, hidden=384, layers=1, heads=4),
    QFormerConfig(width=96, inner=96, hidden=384, layers=2, heads=4, queries=16),
    QFormerText(512, 32),
    projection=64,
)


@pytest.mark.slow
def test_the_compiler_counts_as_many_flops():
    """Of the forward passes with whole texts; elementwise work, and pairs that are masked, are the difference."""
    count, length = 8, 32
    batch = CaptionBatch(
        jnp.zeros((count, 32, 32, 3), jnp.uint8),
        jnp.zeros((count, length), jnp.int32),
        jnp.ones((count, length), bool),
        jnp.zeros(count, jnp.uint32),
        jnp.zeros(count, bool),
    )
    params = unboxed(jax.eval_shape(lambda key: blip2.initialize(MODEL, key), jax.random.key(0)))
    negatives = Negatives(jnp.arange(count), jnp.arange(count))

    whole = jax.jit(lambda *of: QueryPretraining().losses(MODEL, *of, ("vision",), lambda *_: negatives))
    counted = whole.lower(params, batch).compile().cost_analysis()["flops"]
    vision = count * flops.vision_flops(MODEL.vision)
    expected = (stage1_flops(MODEL, np.full(count, length), False) - vision) / 3 + vision
    assert 0.95 * expected < counted < 1.3 * expected


def test_rows_without_a_pair_cost_nothing():
    lengths = np.array([7, 0, 5])
    assert stage1_flops(MODEL, lengths, False) == stage1_flops(MODEL, np.array([7, 5]), False)
    assert stage1_flops(MODEL, lengths, True) > stage1_flops(MODEL, lengths, False)
