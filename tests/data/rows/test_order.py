"""The stream of samples: exact shares, permutations, and places looked up without walking there."""

from collections import Counter

import numpy as np
import pytest

from xgenmm_jax.data.rows import order

STAGE1 = (17.5, 17.5, 12.5, 2.5, 25.0, 10.0, 5.0, 5.0, 1.25, 1.25, 1.25, 1.25)  # the paper's, in percent


def test_shares_are_the_weights_ratio():
    assert order.shares((17.5, 2.5, 5.0)) == (7, 1, 2)
    assert order.shares((1.0,)) == (1,)
    parts = order.shares(STAGE1)
    assert sum(parts) == 80 and np.allclose(np.array(parts) / 80 * 100, STAGE1)
    assert min(order.shares((np.pi, 1e-9))) == 1


def test_mixture_keeps_its_weights_at_every_place():
    components = np.array([draw.component for draw in order.draws(STAGE1, [1000] * 12, 0, 0, 4000)])
    counts = np.cumsum(components[:, None] == np.arange(12), axis=0)
    target = np.arange(1, 4001)[:, None] * np.array(STAGE1) / 100
    assert np.abs(counts - target).max() < 2


def test_stream_is_the_same_from_any_start():
    """A resumed run that counts its draws differently."""
    weights, lengths = (3.0, 1.0, 0.7), (7, 1, 1000)
    whole = order.draws(weights, lengths, 5, 0, 900)
    for start in (1, 50, 449, 899):
        assert order.draws(weights, lengths, 5, start, 900 - start) == whole[start:]
    far = order.draws(weights, lengths, 5, 10**12, 3)
    assert far == order.draws(weights, lengths, 5, 10**12 - 1, 4)[1:]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 1000])
def test_each_epoch_draws_every_record_once(length):
    whole = order.draws((1.0,), (length,), 3, 0, 3 * length)
    epochs = [[draw.record for draw in whole if draw.epoch == epoch] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    if length >= 64:
        assert epochs[0] != epochs[1] != epochs[2]


def test_permutation_is_well_mixed():
    """Neighbours and places are uncorrelated, so that a window holds all of a sorted source."""
    key = np.random.SeedSequence(0).generate_state(5, np.uint64)
    permuted = order.permute(np.arange(10_000), 10_000, key)
    assert abs(np.corrcoef(permuted, np.arange(10_000))[0, 1]) < 0.04
    assert abs(np.corrcoef(permuted[1:], permuted[:-1])[0, 1]) < 0.04
    big = order.permute(np.arange(1000), 10**11, key)
    assert len(set(big.tolist())) == 1000 and big.min() >= 0 and big.max() < 10**11


def test_seeds_epochs_and_components_shuffle_apart():
    a, b = (tuple(draw.record for draw in order.draws((1.0, 1.0), (50, 50), seed, 0, 100)) for seed in (0, 1))
    assert a != b
    assert a[::2] != a[1::2]
    first = order.Draw(0, 3, 0)
    states = Counter(draw.rng(1).integers(1 << 60) for draw in (first, first._replace(epoch=1), order.Draw(1, 3, 0)))
    assert len(states) == 3


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="weight 0"):
        order.shares((1.0, 0.0))
    with pytest.raises(ValueError, match="no component"):
        order.shares(())
    with pytest.raises(ValueError, match="0 records"):
        order.draws((1.0,), (0,), 0, 0, 1)
