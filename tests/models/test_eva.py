"""EVA-CLIP-E's tower and the pooling of features, against the official ones at a tiny size."""

import blip3o_goldens as goldens
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.convert.formats import eva as eva_format
from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.models import sizes
from xgenmm_jax.models.eva import EVA, EVAConfig
from xgenmm_jax.models.flops import vision_flops
from xgenmm_jax.models.layers import normalize_pixels
from xgenmm_jax.models.pooling import pool_grid
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.sharding import RULES


def test_tokens_and_pooled_features_are_the_official_ones():
    config, params = goldens.eva()
    with jax.default_matmul_precision("highest"):
        pixels = jnp.asarray(goldens.channels_last("pixel_values"))
        tokens = jax.jit(EVA(config).apply)({"params": params}, pixels)
    assert tokens.shape == (3, 1024, 24)
    expected = goldens.outputs()["tower_tokens_every_8th"]
    np.testing.assert_allclose(tokens[:, ::8], expected, rtol=0, atol=2e-5)
    pooled = pool_grid(tokens.reshape(3, 32, 32, 24), 8)
    np.testing.assert_allclose(pooled, goldens.channels_last("pooled"), rtol=0, atol=2e-5)


def test_bytes_are_normalised_as_the_official_processor_does():
    """The golden's third picture has the tower's size: its pixels are its bytes."""
    config = goldens.eva()[0]
    picture = jnp.asarray(goldens.outputs()["pictures/2"])
    pixels = normalize_pixels(picture, "float32", config.pixel_mean, config.pixel_std)
    np.testing.assert_allclose(pixels, goldens.channels_last("pixel_values")[2], rtol=0, atol=1e-6)


def test_the_published_tower_has_the_official_tensors():
    pixels = jnp.zeros((1, 448, 448, 3))
    boxed = jax.eval_shape(EVA(sizes.EVA_E).init, jax.random.key(0), pixels)["params"]
    flat = goldens.flat(unboxed(boxed), "target/eva")
    assert sum(leaf.size for leaf in flat.values()) == 4_350_208_256
    theirs = their_shapes(
        eva_format.tower_rules(sizes.EVA_E, f"model.{eva_format.PREFIX}"),
        {name: leaf.shape for name, leaf in flat.items()},
    )
    assert theirs == goldens.full_size("EVA tower", sizes.EVA_E.layers)
    for leaf in jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)):
        assert {name for name in leaf.names if name is not None} <= set(RULES)


def test_the_compiler_counts_as_many_flops():
    """Elementwise work is the difference."""
    config = EVAConfig(image_size_px=64, patch_px=8, width=256, hidden=768, layers=2, heads=4)
    pixels = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = unboxed(jax.eval_shape(EVA(config).init, jax.random.key(0), pixels))
    counted = jax.jit(EVA(config).apply).lower(params, pixels).compile().cost_analysis()["flops"]
    assert vision_flops(config) < counted < 1.05 * vision_flops(config)


@pytest.mark.parametrize(("grid", "side"), [(27, 8), (27, 9), (32, 8), (7, 7), (5, 3), (3, 5)])
def test_cells_of_any_grid_average_the_windows_that_torch_takes(grid, side):
    features = np.random.default_rng(0).normal(size=(2, grid, grid, 3)).astype(np.float32)
    pooled = np.asarray(pool_grid(jnp.asarray(features), side))
    cells = features.astype(np.float64)
    windows = [slice(int(np.floor(i * grid / side)), int(np.ceil((i + 1) * grid / side))) for i in range(side)]
    for row, rows in enumerate(windows):
        for column, columns in enumerate(windows):
            expected = cells[:, rows, columns].mean(axis=(1, 2))
            np.testing.assert_allclose(pooled[:, row, column], expected, rtol=0, atol=1e-6)


def test_sizes_that_fit_no_tower_are_refused():
    with pytest.raises(ValueError, match="448 px for patches of 15"):
        EVAConfig(patch_px=15)
    with pytest.raises(ValueError, match="60 x 64 px, the tower wants 64"):
        config, params = goldens.eva()
        EVA(config).apply({"params": params}, jnp.zeros((1, 60, 64, 3)))
