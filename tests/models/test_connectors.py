"""Resampler and MLP connector beyond what the goldens cover."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import random_parameters

from xgenmm_jax.models.mlp_connector import MLPConnector, MLPConnectorConfig, max_pool
from xgenmm_jax.models.resampler import Resampler, ResamplerConfig

CONFIG = ResamplerConfig(width=8, layers=2, heads=2, head_width=4, hidden=16, queries=3, out_width=12)
AWARE = replace(CONFIG, instruction_tokens=4)


def media(patches=6):
    return jax.random.normal(jax.random.key(0), (2, patches, 8))


def parameters(config, *arguments):
    return random_parameters(Resampler(config).init, *arguments)


def test_masked_features_are_absent_features():
    mask = jnp.arange(6)[None] < jnp.asarray([4, 4])[:, None]
    params = parameters(CONFIG, media(), mask)
    apply = jax.jit(Resampler(CONFIG).apply)
    masked = apply(params, media(), mask)
    absent = apply(params, media()[:, :4], mask[:, :4])
    np.testing.assert_allclose(masked, absent, rtol=0, atol=1e-5)
    without_media = apply(params, media(), jnp.zeros_like(mask))
    assert np.isfinite(without_media).all()
    np.testing.assert_allclose(without_media[0], without_media[1], rtol=0, atol=1e-5)


def test_instruction_changes_the_tokens_and_its_padding_does_not():
    mask = jnp.ones((2, 6), bool)
    text = jax.random.normal(jax.random.key(2), (2, 4, 12))
    some = jnp.arange(4)[None] < jnp.asarray([2, 0])[:, None]
    params = parameters(AWARE, media(), mask, text, some)
    apply = jax.jit(Resampler(AWARE).apply)
    got = apply(params, media(), mask, text, some)
    assert got.shape == (2, 3, 12)
    other_padding = jnp.where(some[..., None], text, 7.0)
    np.testing.assert_array_equal(got, apply(params, media(), mask, other_padding, some))
    plain = {"params": {name: p for name, p in params["params"].items() if not name.startswith("text_projection")}}
    unaware = jax.jit(Resampler(CONFIG).apply)(plain, media(), mask)
    np.testing.assert_allclose(got[1], unaware[1], rtol=0, atol=1e-5)
    assert np.abs(got[0] - unaware[0]).max() > 1e-2
    with pytest.raises(ValueError, match="got no instruction"):
        apply(params, media(), mask)


def test_attention_can_be_captured():
    """Each query's weights over 6 features and 3 latents, of each of 2 layers and 2 heads."""
    mask = jnp.arange(6)[None] < jnp.asarray([4, 6])[:, None]
    params = parameters(CONFIG, media(), mask)
    apply = jax.jit(lambda *arguments: Resampler(CONFIG).apply(*arguments, mutable=["attention"]))
    _, captured = apply(params, media(), mask)
    (weights,) = captured["attention"]["layers"]["weights"]
    assert weights.shape == (2, 2, 2, 3, 9)
    np.testing.assert_allclose(weights.sum(-1), np.ones((2, 2, 2, 3)), rtol=0, atol=1e-5)
    assert not weights[:, 0, ..., 4:6].any()


def test_odd_last_row_and_column_are_pooled_alone():
    grid = jnp.asarray([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 9, 1)
    np.testing.assert_array_equal(max_pool(grid, 2).reshape(-1), [5, 6, 8, 9])
    np.testing.assert_array_equal(max_pool(-grid, 2).reshape(-1), [-1, -3, -7, -9])


def test_mlp_connector_gives_196_tokens_of_27_by_27():
    config = MLPConnectorConfig(width=1152, out_width=3072)
    model = MLPConnector(config)
    tokens = jax.eval_shape(
        lambda key, x: model.init_with_output(key, x)[0], jax.random.key(0), jnp.zeros((1, 729, 1152))
    )
    assert tokens.shape == (1, 196, 3072)
