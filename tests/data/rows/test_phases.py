"""Weights of a mixture and their changes: exact shares, and epochs that go on where they were."""

from collections import Counter
import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tiny_run

from xgenmm_jax.data.rows import order, phases
from xgenmm_jax.data.rows.order import Phase, Shards
from xgenmm_jax.nano.sources import Synthetic

STAGE1 = (17.5, 17.5, 12.5, 2.5, 25.0, 10.0, 5.0, 5.0, 1.25, 1.25, 1.25, 1.25)  # the paper's, in percent
STAGE2 = (17.5, 17.5, 12.5, 2.5, 10.0, 2.5, 2.5, 0.0, 1.25, 1.25, 1.25, 1.25, 10.0, 10.0)  # OCR-HD and IDL added


def windows_of(weights, sources, first, stop, window_samples=50, seed=4):
    """(components, records, epochs) of windows first .. stop - 1."""
    drawn = [order.draws(weights, sources, seed, window_samples, window) for window in range(first, stop)]
    return tuple(np.concatenate(arrays) for arrays in zip(*drawn, strict=True))


def test_shares_are_the_weights_ratio():
    assert phases.shares((17.5, 2.5, 5.0)) == (7, 1, 2)
    assert phases.shares((1.0,)) == (1,)
    parts = phases.shares(STAGE1)
    assert sum(parts) == 80 and np.allclose(np.array(parts) / 80 * 100, STAGE1)
    assert min(phases.shares((np.pi, 1e-9))) == 1


def test_mixture_keeps_its_weights_at_every_place():
    components, _, _ = windows_of([Phase(0, STAGE1)], [Shards.one(1000)] * 12, 0, 80)
    counts = np.cumsum(components[:, None] == np.arange(12), axis=0)
    target = np.arange(1, 4001)[:, None] * np.array(STAGE1) / 100
    assert np.abs(counts - target).max() < 2


def test_other_weights_are_drawn_from_their_window_on():
    """To half a point of the next 8,000 samples; and before the change nothing moves."""
    sources = [Shards.one(1000)] * 14
    changed = [Phase(0, STAGE1), Phase(37, STAGE2)]
    before = windows_of([Phase(0, STAGE1)], sources[:12], 0, 37)
    for was, now in zip(before, windows_of(changed, sources, 0, 37), strict=True):
        np.testing.assert_array_equal(was, now)
    components, _, _ = windows_of(changed, sources, 37, 37 + 160)
    share = np.bincount(components, minlength=14) / len(components)
    assert len(components) == 8000 and np.abs(share - np.array(STAGE2) / sum(STAGE2)).max() < 0.005
    assert share[7] == 0, "a weight of 0: not drawn"


@settings(max_examples=25)
@given(st.data())
def test_a_change_of_weights_repeats_and_skips_no_record_of_the_running_epoch(data):
    """Weights of 0, sources that come later, several changes, epochs that end in the middle of a phase."""
    count = data.draw(st.integers(1, 4))
    sources = [Shards.one(data.draw(st.integers(1, 300))) for _ in range(count)]
    starts = sorted(data.draw(st.sets(st.integers(1, 12), max_size=3)))
    weight = st.sampled_from([0.0, 0.5, 1.0, 2.5, 7.0, np.pi])
    weights = [data.draw(st.lists(weight, min_size=1, max_size=count).filter(any)) for _ in [0, *starts]]
    steps = [Phase(window, tuple(one)) for window, one in zip([0, *starts], weights, strict=True)]
    components, records, epochs = windows_of(steps, sources, 0, 16)
    for component, source in enumerate(sources):
        length = int(source.ends[-1])
        of_component = components == component
        # Draws of a source go through one epoch after the other, each record once in each.
        expected = np.arange(of_component.sum()) // length
        np.testing.assert_array_equal(epochs[of_component], expected)
        seen = Counter(zip(epochs[of_component].tolist(), records[of_component].tolist(), strict=True))
        assert set(seen.values()) <= {1}
        for epoch in range(int(of_component.sum()) // length):
            assert {record for of_epoch, record in seen if of_epoch == epoch} == set(range(length))


def test_weights_that_change_to_the_same_draw_no_record_twice():
    """The order of sources begins anew with a phase; of each source the epoch goes on."""
    one = windows_of([Phase(0, (3.0, 1.0, 0.7))], [Shards.one(400)] * 3, 0, 9)
    two = windows_of([Phase(0, (3.0, 1.0, 0.7)), Phase(4, (3.0, 1.0, 0.7))], [Shards.one(400)] * 3, 0, 9)
    for component in range(3):
        whole, cut = (drawn[1][drawn[0] == component] for drawn in (one, two))
        least = min(len(whole), len(cut))
        np.testing.assert_array_equal(whole[:least], cut[:least])
        assert abs(len(whole) - len(cut)) <= 1


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([], r"got weights from windows \[\] on; wanted windows that ascend, the first of them 0"),
        ([(1, (1.0,))], r"windows \[1\] on; wanted .* the first of them 0"),
        ([(0, (1.0,)), (5, (2.0,)), (5, (1.0,))], r"windows \[0, 5, 5\] on; wanted windows that ascend"),
        ([(0, (1.0,)), (5, (0.0, 0.0))], r"weights \(0.0, 0.0\) from window 5 on; wanted at least one above 0"),
        ([(0, ())], r"weights \(\) from window 0 on; wanted at least one above 0"),
        ([(0, (1.0, 2.0, 3.0))], "got 3 weights from window 0 on for 2 sources; give at most one a source"),
        ([(0, (1.0, -1.0))], "weight -1.0; wanted a positive number"),
        ([(0, (1.0, float("nan")))], "weight nan; wanted a positive number"),
    ],
)
def test_phases_that_are_none_are_told_with_what_is_wanted(steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        order.draws([Phase(*step) for step in steps], [Shards.one(9)] * 2, 0, 50, 0)


def test_shares_of_nothing_and_of_zero_are_refused():
    with pytest.raises(ValueError, match="weight 0"):
        phases.shares((1.0, 0.0))
    with pytest.raises(ValueError, match="no component"):
        phases.shares(())


def test_the_last_phase_of_a_config_is_its_mixture(tmp_path):
    """A config says its weights once as the mixture's; an override of one of them would else be without effect."""
    data = tiny_run.data(tiny_run.tokenizer(tmp_path), ((Synthetic("caption", 40), 2.0), (Synthetic("ocr", 40), 1.0)))
    assert data.order_phases == (Phase(0, (2.0, 1.0)),)
    changed = dataclasses.replace(data, phases=((0, (1.0,)), (9, (2.0, 1.0))))
    assert changed.order_phases == (Phase(0, (1.0,)), Phase(9, (2.0, 1.0)))
    with pytest.raises(ValueError, match=r"\(2.0, 3.0\) from window 9 on, wanted .* \(2.0, 1.0\); make"):
        dataclasses.replace(data, phases=((0, (1.0,)), (9, (2.0, 3.0))))
    with pytest.raises(ValueError, match="windows that ascend, the first of them 0"):
        dataclasses.replace(data, phases=((3, (2.0, 1.0)),))
    with pytest.raises(ValueError, match="wanted at least one above 0"):
        dataclasses.replace(data, phases=((0, (0.0,)), (9, (2.0, 1.0))))
