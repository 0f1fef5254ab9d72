"""Losses against their direct formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.training import losses


def random_rows(rows: int = 3, length: int = 21, width: int = 5, vocab: int = 11):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(rows, length, width)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(width, vocab)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, vocab, (rows, length)), jnp.int32)
    mask = rng.random((rows, length)) < np.array([0.7, 0.0, 0.2])[:, None]
    mask[:, 0] = False
    return hidden, kernel, ids, jnp.asarray(mask)


def direct(hidden, kernel, ids, mask):
    log_probs = jax.nn.log_softmax(hidden[:, :-1] @ kernel)
    chosen = jnp.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0]
    return jnp.pad(jnp.where(mask[:, 1:], chosen, 0.0), ((0, 0), (1, 0)))


@pytest.mark.parametrize("chunk", [1, 4, 8, 64])
def test_chunked_log_probs_equal_the_whole_softmax(chunk):
    """Chunks that are skipped, padded or half full once dropped tokens in other codebases."""
    hidden, kernel, ids, mask = random_rows()
    got = losses.token_log_probs(lambda x: x @ kernel, hidden, ids, mask, chunk)
    np.testing.assert_allclose(got, direct(hidden, kernel, ids, mask), rtol=1e-5, atol=1e-6)


def test_chunked_gradients_equal_the_whole_softmax():
    hidden, kernel, ids, mask = random_rows()
    chunked = jax.grad(
        lambda h, k: losses.token_log_probs(lambda x: x @ k, h, ids, mask, 4).sum(), argnums=(0, 1)
    )(hidden, kernel)
    whole = jax.grad(lambda h, k: direct(h, k, ids, mask).sum(), argnums=(0, 1))(hidden, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), chunked, whole)


def test_pair_sums_are_the_segments_of_each_pair():
    values = jnp.asarray([[1.0, 2, 3, 4, 5, 6, 7]])
    segments = jnp.asarray([[1, 1, 2, 3, 4, 4, 0]], jnp.int32)
    chosen, rejected = losses.pair_sums(values, segments)
    np.testing.assert_array_equal(chosen[0], [3, 4, 0, 0])
    np.testing.assert_array_equal(rejected[0], [3, 11, 0, 0])


def test_preference_loss_at_equal_policies_is_log_two():
    margin = jnp.asarray([3.0, -2.0])
    np.testing.assert_allclose(losses.preference_loss(margin, margin, 0.1), np.log(2) * np.ones(2), rtol=1e-6)
    got = losses.preference_loss(margin, jnp.asarray([1.0, 1.0]), 0.5)
    np.testing.assert_allclose(got, np.log1p(np.exp(-0.5 * np.array([2.0, -3.0]))), rtol=1e-6)


def test_contrastive_losses_equal_their_formulas():
    rng = np.random.default_rng(1)
    image, text = (rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    scale, bias = np.float32(3.0), np.float32(-1.5)
    nothing = jnp.zeros((5, 5), bool)
    logits = scale * image.astype(np.float64) @ text.T + bias
    sign = 2 * np.eye(5) - 1
    sigmoid = np.log1p(np.exp(-sign * logits)).sum()
    arguments = (jnp.asarray(image), jnp.asarray(text), jnp.asarray(scale), jnp.asarray(bias), nothing)
    np.testing.assert_allclose(losses.sigmoid_contrast(*arguments), sigmoid, rtol=1e-5)
    over_texts = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    over_images = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    np.testing.assert_allclose(losses.softmax_contrast(*arguments), (over_texts + over_images).sum() / 2, rtol=1e-5)


def test_same_captions_are_found_and_order_counts():
    ids = jnp.asarray([[1, 2, 0], [2, 1, 0], [1, 2, 0], [1, 2, 3]], jnp.int32)
    same = np.zeros((4, 4), bool)
    same[0, 2] = same[2, 0] = True
    np.testing.assert_array_equal(losses.same_captions(ids), same)
