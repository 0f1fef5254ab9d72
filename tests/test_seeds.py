"""Seeds of any size draw numbers of their own."""

import itertools

import jax
import numpy as np
import pytest

from xgenmm_jax.seeds import random_key

SMALL = (0, 1, 5, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
LARGE = (2**32, 2**32 + 1, 2**32 + 5, 2**33, 2**63 - 1, 2**63, 2**64, 2**64 + 5, 2**70, 10**40)
NEGATIVE = (-1, -5, -(2**31), -(2**32), -(2**32) - 5, -(2**70), 5 - 2**32)


def data(seed) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(random_key(seed))).tolist())


@pytest.mark.parametrize("seed", SMALL)
def test_a_seed_of_32_bits_has_the_key_that_it_always_had(seed):
    np.testing.assert_array_equal(data(seed), jax.random.key_data(jax.random.key(np.uint32(seed))))


def test_no_two_seeds_have_one_key():
    """jax cuts them to 32 bits without a word; 2**70 ended in an overflow."""
    keys = {seed: data(seed) for seed in (*SMALL, *LARGE, *NEGATIVE)}
    same = [pair for pair in itertools.combinations(keys, 2) if keys[pair[0]] == keys[pair[1]]]
    assert not same
    assert {seed: data(seed) for seed in keys} == keys


def test_a_sign_and_further_words_are_told_apart():
    """-5 and the positive number that has its words."""
    for low, high in ((5, 0), (5, 1), (2**32 - 1, 2**32 - 1)):
        size = low + (high << 32)
        others = {data(size), data(-size), data(size + (1 << 64)), data(size + (0xFFFFFFFF << 64))}
        assert len(others) == 4

