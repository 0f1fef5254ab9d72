from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import random_parameters

from xgenmm_jax.models.kv_cache import empty_cache, unstack_layers
from xgenmm_jax.models.phi3 import Phi3, Phi3Config
from xgenmm_jax.ops.masks import WindowConvention

CONFIG = Phi3Config(
    vocab_size=32, num_text_tokens=29, width=16, hidden=24, layers=3, heads=4, kv_heads=2, window_size=5
)


def parameters(config=CONFIG):
    ids = jnp.zeros((1, 2), jnp.int32)
    return random_parameters(Phi3(config).init, ids, ids, ids)


def random_ids(shape):
    return np.random.default_rng(2).integers(0, CONFIG.logits, shape).astype(np.int32)


def logits_of(config, params, ids, segments, positions):
    return np.asarray(jax.jit(Phi3(config).apply)(params, ids, segments, positions))


@pytest.mark.parametrize("window", list(WindowConvention))
def test_packed_samples_are_separate_samples(window):
    """Two samples in a row, and padding, give what each gives alone."""
    config, params = replace(CONFIG, window=window), parameters()
    ids = random_ids((1, 16))
    segments = np.asarray([[1] * 9 + [2] * 5 + [0] * 2], np.int32)
    positions = np.asarray([[*range(9), *range(5), 0, 0]], np.int32)
    packed = logits_of(config, params, ids, segments, positions)
    for start, end in ((0, 9), (9, 14)):
        length = end - start
        alone = logits_of(
            config, params, ids[:, start:end], np.ones((1, length), np.int32), np.arange(length, dtype=np.int32)[None]
        )
        np.testing.assert_allclose(packed[:, start:end], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "window, apart", [(WindowConvention.W_PLUS_1, True), *((window, False) for window in WindowConvention)]
)
def test_cached_decoding_is_uncached(window, apart):
    """Left-padded prompts of two lengths, then one token at a time, beyond the window, in a cache with spare room.

    apart: with each layer's parameters and cache by themselves, as loops over tokens have them.
    """
    config, params = replace(CONFIG, window=window), parameters()
    ids, prompt, total = random_ids((2, 12)), 6, 12
    pads = np.asarray([0, 2])
    segments = (np.arange(total)[None] >= pads[:, None]).astype(np.int32)
    positions = np.maximum(np.arange(total)[None] - pads[:, None], 0).astype(np.int32)
    expected = logits_of(config, params, ids, segments, positions)

    model = Phi3(config)

    def extend(model, ids, segments, positions, cache, offset, layers=None):
        hidden, cache = model.extend(model.embed(ids), segments, positions, cache, offset, layers)
        return model.logits(hidden), cache

    apply = jax.jit(lambda *arguments: model.apply(params, *arguments, method=extend))
    cache = empty_cache(config, 2, 15, "float32")
    got, cache = apply(ids[:, :prompt], segments[:, :prompt], positions[:, :prompt], cache, np.int32(0))
    parts, layers = [got], None
    if apart:
        layers, cache = unstack_layers(params["params"], cache)
    for t in range(prompt, total):
        one = slice(t, t + 1)
        got, cache = apply(ids[:, one], segments[:, one], positions[:, one], cache, np.int32(t), layers)
        parts.append(got)
    valid = segments > 0
    np.testing.assert_allclose(np.concatenate(parts, axis=1)[valid], expected[valid], rtol=0, atol=1e-5)


def test_a_prompt_at_a_known_offset_is_the_same_in_chunks():
    """Behind a prefix of 16 tokens, longer than a chunk of queries; the spare room is not read at all."""
    params, length, before = parameters(), 150, 16
    ids = random_ids((2, before + length))
    pads = np.asarray([0, 20])
    segments = np.ones((2, before + length), np.int32)
    segments[:, before:] = np.arange(length)[None] >= pads[:, None]
    positions = (np.cumsum(segments, axis=1) - 1).astype(np.int32)

    def states(model, ids, segments, positions, offset):
        cache = empty_cache(CONFIG, 2, before + length + 10, "float32")
        start, prompt = slice(None, before), slice(before, None)
        _, cache = model.extend(model.embed(ids[:, start]), segments[:, start], positions[:, start], cache, 0)
        if isinstance(offset, int):
            cache = cache._replace(value=cache.value.at[:, :, before + length :].set(jnp.nan))
        return model.extend(model.embed(ids[:, prompt]), segments[:, prompt], positions[:, prompt], cache, offset)[0]

    known, traced = (
        Phi3(CONFIG).apply(params, *map(jnp.asarray, (ids, segments, positions)), offset, method=states)
        for offset in (before, jnp.int32(before))
    )
    np.testing.assert_allclose(known, traced, rtol=0, atol=1e-5)


def test_cache_leaves_carry_the_batch_on_axis_1():
    assert {leaf.shape[1] for leaf in empty_cache(CONFIG, 7, 3, "float32")} == {7}


def test_decoupled_rows_and_columns():
    """Ids from num_text_tokens on take the extra embedding; logits are num_text_tokens columns and 3 more."""
    params = parameters()
    tree = params["params"]
    ids = jnp.asarray([[0, 28, 29, 31]], jnp.int32)
    rows = Phi3(CONFIG).apply(params, ids, method="embed")[0]
    np.testing.assert_array_equal(
        rows, [tree["embedding"][0], tree["embedding"][28], *tree["additional_embedding"][jnp.asarray([0, 2])]]
    )
    hidden = jax.random.normal(jax.random.key(3), (5, 16))
    logits = Phi3(CONFIG).apply(params, hidden, method="logits")
    base = hidden @ tree["head_kernel"] + tree["head_bias"][None]
    more = hidden @ tree["additional_head_kernel"] + tree["additional_head_bias"][None]
    np.testing.assert_allclose(logits, jnp.concatenate([base[:, :29], more], axis=1), rtol=0, atol=1e-5)


def test_layers_are_stacked_under_one_logical_axis():
    ids = jnp.zeros((1, 2), jnp.int32)
    boxed = jax.eval_shape(Phi3(CONFIG).init, jax.random.key(0), ids, ids, ids)["params"]["layers"]
    kernel = boxed["qkv_proj"]["kernel"]
    assert kernel.names == ("layers", "embed", "heads", None, "kv")
    assert kernel.value.shape == (3, 16, 2, 4, 4)
