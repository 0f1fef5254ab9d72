"""How far bfloat16 moves logits: the bound that docs/design.md gives, over random models of several sizes."""

from dataclasses import replace
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny28

from xgenmm_jax.batch import Batch
from xgenmm_jax.models import blip3
from xgenmm_jax.models.blip3 import VLM, VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig

SEEDS = 4
SIZES = {
    "tiny28": tiny28.CONFIG,
    "grouped": VLMConfig(
        vision=ViTConfig(image_size_px=42, patch_px=14, width=48, hidden=96, layers=3, heads=3),
        connector=ResamplerConfig(width=48, layers=6, heads=16, head_width=96, hidden=192, queries=8, out_width=96),
        decoder=Phi3Config(
            vocab_size=448, num_text_tokens=400, width=96, hidden=256, layers=4, heads=6, kv_heads=3, window_size=40
        ),
    ),
    "deep": VLMConfig(
        vision=ViTConfig(image_size_px=28, patch_px=14, width=64, hidden=128, layers=6, heads=4),
        connector=ResamplerConfig(width=64, layers=3, heads=4, head_width=32, hidden=256, queries=8, out_width=128),
        decoder=Phi3Config(vocab_size=320, num_text_tokens=300, width=128, hidden=256, layers=8, heads=4, kv_heads=4),
    ),
}


def parameters(config: VLMConfig, seed: int) -> dict:
    """Of the golden's distributions: maps keep the size of what they take, norms and biases are random too."""
    shapes = nn.unbox(jax.eval_shape(functools.partial(blip3.initialize, config), jax.random.key(0)))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        names = [key.key for key in path]
        shape = leaf.shape[1:] if "layers" in names else leaf.shape
        if names[-1] == "scale":
            value = rng.normal(1, 0.1, leaf.shape)
        elif "bias" in names[-1]:
            value = rng.normal(0, 0.1, leaf.shape)
        elif names[-1] in ("kernel", "head_kernel", "additional_head_kernel") and "patch_embedding" not in names:
            inputs = np.prod(shape[:2]) if {"out", "to_out", "o_proj"} & set(names) else shape[0]
            value = rng.normal(0, inputs**-0.5, leaf.shape)
        else:
            value = rng.normal(0, 0.5, leaf.shape)
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def rows(config: VLMConfig, seed: int, length: int = 80) -> Batch:
    """Two rows of text around an image of 2 x 2 crops, part of which is padding."""
    rng = np.random.default_rng(1000 + seed)
    crops, tokens, px = 5, config.tokens_per_group, config.vision.image_size_px
    slot = np.full((2, length), -1, np.int32)
    slot[:, 3 : 3 + crops * tokens] = np.arange(crops * tokens)
    grid = config.vision.grid
    return Batch(
        token_ids=rng.integers(0, config.decoder.num_text_tokens, (2, length)).astype(np.int32),
        segment_ids=np.ones((2, length), np.int32),
        positions=np.tile(np.arange(length, dtype=np.int32), (2, 1)),
        loss_mask=np.zeros((2, length), bool),
        slot=slot,
        pixels=rng.uniform(-1, 1, (2, crops, px, px, 3)).astype(np.float32),
        crop_image=np.zeros((2, crops), np.int32),
        crop_segment=np.ones((2, crops), np.int32),
        image_grid=np.full((2, 1, 2), 2, np.int32),
        image_size_px=np.full((2, 1, 2), 64, np.int32),
        image_valid=np.tile(np.array([grid // 2, 2 * grid - grid // 2, 0, 2 * grid], np.int32), (2, 1, 1)),
    )


def rounded(params, dtype=jnp.bfloat16):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(dtype), params)


@pytest.mark.parametrize(
    "size", [size if size == "tiny28" else pytest.param(size, marks=pytest.mark.slow) for size in SIZES]
)
def test_bfloat16_moves_logits_no_further_than_said(size):
    """One golden was within 2e-2 of the largest logit, which was taken for a bound; another model came to 2.2e-2.

    The bounds are of the whole. One rounding more (the head's result, a norm's, attention's products, rotary angles:
    all were tried) is lost in the parameters' own, so it is no operation that made 2.2e-2 of 2e-2.
    """
    config = replace(SIZES[size], token_sampling=TokenSampling.STRIPS)
    full, half = (
        jax.jit(lambda params, batch, config=config: VLM(config).apply({"params": params}, batch))
        for config in (config, replace(config, dtype="bfloat16"))
    )
    differences = {"both": [], "computation": [], "parameters": []}
    for seed in range(SEEDS):
        params, batch = parameters(config, seed), rows(config, seed)
        expected = full(params, batch)
        differences["both"].append(half(rounded(params), batch) - expected)
        differences["computation"].append(half(params, batch) - expected)
        differences["parameters"].append(full(rounded(params, jnp.float32), batch) - expected)
        for errors in differences.values():
            errors[-1] = np.asarray(errors[-1] / jnp.abs(expected).max(), np.float64)
    mean_square = {name: np.sqrt(np.mean(np.square(errors))) for name, errors in differences.items()}
    assert all(np.abs(errors).max() < 4e-2 for errors in differences.values())
    assert mean_square["computation"] < mean_square["both"] < 5e-3
    # More than half of the error is there before anything is computed in bfloat16.
    assert mean_square["both"] < 1.7 * mean_square["parameters"]
