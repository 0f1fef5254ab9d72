"""The order of a source's records: epochs in groups of shards, places looked up without walking there."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from xgenmm_jax.data.rows import order
from xgenmm_jax.data.rows.order import Draw, Draws, Phase, Shards

ALONE = (Phase(0, (1.0,)),)


def stream(weights, sources, seed, start, count):
    """Samples start .. start + count - 1 as Draws of one element each, window by window of one sample."""
    phases = [Phase(0, weights)]
    return [order.draws(phases, sources, seed, 1, number).draw(0) for number in range(start, start + count)]


def lengths(*records):
    return [Shards.one(count) for count in records]


def shards(sizes, held_out=None, group_shards=16):
    held_out = None if held_out is None else np.array(held_out, bool)
    return Shards(np.cumsum(np.array(sizes, np.int64)), held_out, group_shards)


def tuples(draws):
    return [tuple(draws.draw(i)) for i in range(len(draws))]


# What `draws` of commit 9950b99 gave for weights (3, 1, 0.7), 7, 1 and 1000 records and seed 5.
FIRST_24 = [
    (0, 2, 0), (1, 0, 0), (0, 4, 0), (2, 72, 0), (0, 0, 0), (0, 3, 0), (1, 0, 1), (0, 1, 0), (0, 6, 0), (2, 172, 0),
    (0, 5, 0), (0, 2, 1), (1, 0, 2), (0, 6, 1), (0, 0, 1), (1, 0, 3), (0, 5, 1), (2, 4, 0), (0, 4, 1), (0, 1, 1),
    (1, 0, 4), (0, 3, 1), (0, 0, 2), (2, 660, 0),
]  # fmt: skip
AT_10_TO_THE_12 = [
    (0, 6, 91185410334), (0, 2, 91185410334), (1, 0, 212765957447), (0, 0, 91185410334), (0, 4, 91185410334),
    (2, 108, 148936170), (0, 5, 91185410334), (0, 0, 91185410335),
]  # fmt: skip
# One source of 2e8 records, seed 2**70 + 3, from sample 1e9 on.
OF_MANY = [125142179, 151686610, 26692905, 137435989, 67534138, 192432373, 119831932, 109647339]


def test_a_source_of_one_group_keeps_the_order_of_before_shards():
    """Runs of sources that are not cut draw the records that they drew."""
    phases, sources = [Phase(0, (3.0, 1.0, 0.7))], lengths(7, 1, 1000)
    assert tuples(order.draws(phases, sources, 5, 24, 0)) == FIRST_24
    assert tuples(order.draws(phases, sources, 5, 8, 10**12 // 8)) == AT_10_TO_THE_12
    drawn = order.draws(ALONE, lengths(200_000_000), 2**70 + 3, 8, 10**9 // 8)
    assert drawn.record.tolist() == OF_MANY and set(drawn.epoch.tolist()) == {5}


def test_shards_of_one_group_are_drawn_as_if_they_were_one():
    cut = [shards([3, 4]), Shards.one(1), shards([100, 0, 250, 50, *[50] * 12])]
    assert tuples(order.draws([Phase(0, (3.0, 1.0, 0.7))], cut, 5, 24, 0)) == FIRST_24
    assert tuples(order.draws([Phase(0, (3.0, 1.0, 0.7))], cut, 5, 8, 10**12 // 8)) == AT_10_TO_THE_12


def test_stream_is_the_same_in_windows_of_any_size():
    """A resumed run that counts its draws differently."""
    weights, sources = (3.0, 1.0, 0.7), [*lengths(7, 1), shards([9] * 40, group_shards=4)]
    whole = tuples(order.draws([Phase(0, weights)], sources, 5, 900, 0))
    for size in (1, 50, 449):
        for window in {0, 1, 900 // size - 1}:
            part = tuples(order.draws([Phase(0, weights)], sources, 5, size, window))
            assert part == whole[window * size : (window + 1) * size]
    far = stream(weights, sources, 5, 10**12, 3)
    assert far == stream(weights, sources, 5, 10**12 - 1, 4)[1:]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 1000])
def test_each_epoch_draws_every_record_once(length):
    whole = order.draws(ALONE, lengths(length), 3, 3 * length, 0)
    epochs = [whole.record[whole.epoch == epoch].tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    if length >= 64:
        assert epochs[0] != epochs[1] != epochs[2]


@st.composite
def sources(draw):
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any))
    held_out = draw(st.none() | st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    if held_out is not None and not any(size and not out for size, out in zip(sizes, held_out, strict=True)):
        held_out = None
    return shards(sizes, held_out, draw(st.integers(1, 6)))


def drawn_records(source):
    """Records of the shards that are not held out."""
    all_records = np.arange(source.ends[-1])
    if source.held_out is None:
        return all_records
    return all_records[~source.held_out[order.shard_of(source, all_records)[0]]]


@given(sources(), st.integers(0, 2**80))
def test_an_epoch_draws_each_record_of_its_shards_once_a_group_at_a_time(source, seed):
    expected = drawn_records(source)
    for epoch in range(3):
        draws = order.draws(ALONE, [source], seed, len(expected), epoch)
        assert set(draws.epoch.tolist()) == {epoch}
        assert sorted(draws.record.tolist()) == expected.tolist()
        # Group after group: between two draws of a shard there are at most the others of its group.
        at, _ = order.shard_of(source, draws.record)
        order_of_shards = list(dict.fromkeys(at.tolist()))
        lasts = {shard: int(np.flatnonzero(at == shard)[-1]) for shard in order_of_shards}
        sizes = np.diff(source.ends, prepend=0)
        remaining = set(order_of_shards)
        while remaining:
            begin = int(min(np.flatnonzero(at == shard)[0] for shard in remaining))
            count = min(source.group_shards, len(remaining))
            group = sorted(remaining, key=lasts.get)[:count]
            size = int(sizes[group].sum())
            assert set(at[begin : begin + size].tolist()) == set(group)
            remaining -= set(group)


def test_epochs_go_through_their_shards_in_other_orders():
    """Groups that stay together over epochs would always share their windows."""
    source = shards([5] * 64, group_shards=4)
    epochs = [order.draws(ALONE, [source], 0, 20, 16 * epoch).record for epoch in range(9)]
    firsts = [frozenset(order.shard_of(source, records)[0].tolist()) for records in epochs]
    assert len(set(firsts)) == 9 and {len(first) for first in firsts} == {4}
    assert len(frozenset.union(*firsts)) > 16


@settings(max_examples=25)
@given(st.data())
def test_reached_shards_are_those_whose_groups_are_drawn_from(data):
    mixture = data.draw(st.lists(sources(), min_size=1, max_size=3))
    weight = st.sampled_from([0.0, 1.0, 2.5, 7.0])
    later = data.draw(st.integers(1, 9))
    phases = [
        Phase(window, tuple(data.draw(st.lists(weight, min_size=1, max_size=len(mixture)).filter(any))))
        for window in (0, later)
    ]
    first = data.draw(st.integers(0, 12))
    windows = range(first, first + data.draw(st.integers(0, 12)))
    size = data.draw(st.integers(1, 20))
    got = order.reached(phases, mixture, 3, size, windows)
    touched = [set() for _ in mixture]
    for window in windows:
        for component, record, epoch in tuples(order.draws(phases, mixture, 3, size, window)):
            touched[component] |= group_of(mixture[component], component, record, epoch)
    assert [one.tolist() for one in got] == [sorted(one) for one in touched]


def group_of(source, component, record, epoch):
    """The shards of a record's group, from the whole epoch drawn out."""
    count = len(drawn_records(source))
    only = [Phase(0, (0.0,) * component + (1.0,))]
    nobody = [Shards.one(1)] * component
    records = order.draws(only, [*nobody, source], 3, count, epoch).record
    at, _ = order.shard_of(source, records)
    sizes = np.diff(source.ends, prepend=0)
    begin = 0
    while True:
        group, end = set(), begin
        # A group is the shortest piece of whole shards with as many as a group has, or what is left.
        while end < count and not (len(group) == source.group_shards and sizes[sorted(group)].sum() == end - begin):
            group.add(int(at[end]))
            end += 1
        if record in records[begin:end]:
            return group
        begin = end


def test_reached_takes_no_time_for_many_windows():
    big = shards([4000] * 2000)
    small = shards([40] * 50)
    got = order.reached([Phase(0, (1.0, 1.0))], [big, small], 0, 8192, range(10**6, 10**6 + 100))
    assert 100 <= len(got[0]) <= 200 and got[1].tolist() == list(range(50))
    got = order.reached([Phase(0, (1.0, 1.0))], [big, small], 0, 8192, range(10**6, 10**6 + 100_000))
    assert [len(one) for one in got] == [2000, 50]
    assert [len(one) for one in order.reached(ALONE, [big], 0, 8192, range(3, 3))] == [0]


def test_records_number_those_of_all_shards():
    source = shards([3, 0, 4], held_out=[True, False, False])
    assert set(order.draws(ALONE, [source], 0, 40, 0).record.tolist()) == {3, 4, 5, 6}
    at, index = order.shard_of(source, np.array([0, 2, 3, 6]))
    assert at.tolist() == [0, 0, 2, 2] and index.tolist() == [0, 2, 0, 3]


@given(sources(), st.integers(2, 7), st.integers(0, 2**80))
def test_what_is_set_aside_and_the_rest_are_drawn_apart_and_are_everything(source, one_in, seed):
    """Whole shards, and every so many-th record of the others; each part in epochs of its own."""
    at, index = order.shard_of(source, np.arange(source.ends[-1]))
    is_aside = source.are_held_out[at] | ((index + 1) % one_in == 0)
    source = source._replace(held_out_one_in=one_in)
    for part, expected in ((source, ~is_aside), (source._replace(draws_held_out=True), is_aside)):
        records = np.flatnonzero(expected).tolist()
        for epoch in range(2 if records else 0):
            assert sorted(order.draws(ALONE, [part], seed, len(records), epoch).record.tolist()) == records


def test_draws_are_as_many_as_they_hold():
    draws = order.draws(ALONE, lengths(9), 0, 50, 2)
    assert isinstance(draws, Draws) and len(draws) == 50
    assert draws.draw(7) == Draw(int(draws.component[7]), int(draws.record[7]), int(draws.epoch[7]))


def test_permutation_is_well_mixed():
    """Neighbours and places are uncorrelated, so that a window holds all of a sorted source."""
    key = np.random.SeedSequence(0).generate_state(5, np.uint64)
    permuted = order.permute(np.arange(10_000), 10_000, key)
    assert abs(np.corrcoef(permuted, np.arange(10_000))[0, 1]) < 0.04
    assert abs(np.corrcoef(permuted[1:], permuted[:-1])[0, 1]) < 0.04
    big = order.permute(np.arange(1000), 10**11, key)
    assert len(set(big.tolist())) == 1000 and big.min() >= 0 and big.max() < 10**11


def test_seeds_epochs_and_components_shuffle_apart():
    a, b = (order.draws([Phase(0, (1.0, 1.0))], lengths(50, 50), seed, 100, 0).record.tolist() for seed in (0, 1))
    assert a != b
    assert a[::2] != a[1::2]
    first = Draw(0, 3, 0)
    states = Counter(draw.rng(1).integers(1 << 60) for draw in (first, first._replace(epoch=1), Draw(1, 3, 0)))
    assert len(states) == 3


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="source 0 has 0 records; check its files or leave it out"):
        order.draws(ALONE, lengths(0), 0, 1, 0)
    with pytest.raises(ValueError, match="source 0 has 0 records"):
        order.draws(ALONE, [shards([0, 0])], 0, 1, 0)
    with pytest.raises(ValueError, match="source 0 holds out each of its 2 shards with records; wanted one"):
        order.draws(ALONE, [shards([2, 0, 5], held_out=[True, False, True])], 0, 1, 0)
    with pytest.raises(ValueError, match="source 0 sets no record aside; hold out a shard"):
        order.draws(ALONE, [shards([2, 5])._replace(draws_held_out=True)], 0, 1, 0)
