"""Choosers of the next token: what they may choose, and how often they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.generation.text import sampling
from xgenmm_jax.generation.text.decoding import Decoding

DRAWS = 20_000
PROBABILITIES = np.array([0.15, 0.5, 0.05, 0.3])

choose = jax.jit(sampling.choose, static_argnums=2)


def frequencies(decoding: Decoding) -> np.ndarray:
    """How often each of four tokens is drawn."""
    keys = sampling.row_keys(jax.random.key(0), jnp.arange(DRAWS, dtype=jnp.int32))
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(PROBABILITIES, jnp.float32)), (DRAWS, 4))
    return np.bincount(np.asarray(choose(logits, keys, decoding)), minlength=4) / DRAWS


@pytest.mark.parametrize(
    "decoding, possible",
    [
        (Decoding(temperature=1.0), [0, 1, 2, 3]),
        (Decoding(temperature=0.5), [0, 1, 2, 3]),
        (Decoding(temperature=3.0), [0, 1, 2, 3]),
        (Decoding(temperature=1.0, top_k=2), [1, 3]),
        (Decoding(temperature=1.0, top_k=9), [0, 1, 2, 3]),
        (Decoding(temperature=1.0, top_p=0.79), [1, 3]),
        (Decoding(temperature=1.0, top_p=0.81), [0, 1, 3]),
        (Decoding(temperature=1.0, top_p=0.01), [1]),
        (Decoding(temperature=1.0, top_k=3, top_p=0.51), [1]),
        (Decoding(temperature=1.0, top_k=3, top_p=0.53), [1, 3]),
        (Decoding(temperature=0.5, top_k=3, top_p=0.99), [0, 1, 3]),
    ],
)
def test_draws_follow_the_distribution_that_is_left(decoding, possible):
    weights = np.zeros(4)
    weights[possible] = PROBABILITIES[possible] ** (1 / decoding.temperature)
    expected = weights / weights.sum()
    drawn = frequencies(decoding)
    assert set(np.flatnonzero(drawn)) == set(possible)
    # Four standard deviations of the mean.
    np.testing.assert_array_less(np.abs(drawn - expected), 4 * np.sqrt(expected * (1 - expected) / DRAWS) + 1e-12)


def test_the_likeliest_of_one_is_greedy_among_equals_too():
    logits = jnp.asarray(np.random.default_rng(0).integers(0, 3, (64, 12)), jnp.float32)
    keys = sampling.row_keys(jax.random.key(1), jnp.arange(64, dtype=jnp.int32))
    one = choose(logits, keys, Decoding(temperature=1.0, top_k=1))
    np.testing.assert_array_equal(one, choose(logits, keys, Decoding()))


def test_a_row_draws_the_same_whatever_stands_beside_it():
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 1, (8, 30)), jnp.float32)
    keys = sampling.step_keys(sampling.row_keys(jax.random.key(1), jnp.arange(8, dtype=jnp.int32)), jnp.int32(3))
    nucleus = Decoding(temperature=1.0, top_p=0.9)
    together = choose(logits, keys, nucleus)
    np.testing.assert_array_equal(choose(logits[5:6], keys[5:6], nucleus), together[5:6])
    other = sampling.step_keys(sampling.row_keys(jax.random.key(1), jnp.arange(8, dtype=jnp.int32)), jnp.int32(4))
    assert (choose(logits, other, nucleus) != together).any()
