"""Rows that are the best of several ways to fill them: whole like the others, and fewer where samples are large."""

from hypothesis import HealthCheck, given, settings, strategies
import numpy as np

from benchmarks.packing import windows_of
from benchmarks.packing_lengths import MIXTURES, draw
from tests.data.rows.test_pack import assert_whole, windows
from xgenmm_jax.data.rows import filling, look_ahead
from xgenmm_jax.data.rows.groups import Alike, alike, unfillable
from xgenmm_jax.data.rows.look_ahead import LookAhead, worth_of


def looked_ahead(sizes: np.ndarray, full: tuple[int, int, int, int]) -> list[list[int]]:
    return LookAhead(alike(sizes, [1, 2, 3], full), full).rows() if len(sizes) else []


def of_crops(*crops: int) -> list[Alike]:
    """Samples of one position and so many crops."""
    sizes = np.array([(1, one, 0, 1) for one in crops], np.int64).reshape(-1, 4)
    return alike(sizes, [1], (100, 100, 1, 1))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(windows())
def test_no_sample_is_lost_and_no_budget_exceeded(window):
    sizes, room = window
    rows = looked_ahead(sizes, tuple(room))
    assert_whole(rows, sizes, room)
    taken = [sample for row in rows for sample in row]
    for size in np.unique(sizes, axis=0):
        equal = [sample for sample in taken if (sizes[sample] == size).all()]
        assert equal == sorted(equal)


def test_what_no_samples_fill_together():
    """Of 3 and 5: 3, 5, 6 and 8 can be filled, and 0 always."""
    assert unfillable(of_crops(3, 5, 5), 8) == [0, 1, 2, 0, 1, 0, 0, 1, 0]
    assert unfillable(of_crops(0, 0), 2) == [0, 1, 2]
    assert unfillable(of_crops(1), 3) == [0, 0, 0, 0]


@given(strategies.integers(1, 30).flatmap(lambda most: strategies.tuples(
    strategies.just(most), strategies.lists(strategies.integers(1, most), min_size=1, max_size=30)
)))  # fmt: skip
def test_what_fits_a_row_is_never_worth_more_than_a_row(case):
    """So the sum over a window is a bound of its rows."""
    most, crops = case
    whole, worth = worth_of(of_crops(*crops), most)
    assert worth[0] == 0 and worth[most] == whole
    best = [0] * (most + 1)
    for units in range(1, most + 1):
        best[units] = max(worth[one] + best[units - one] for one in range(1, units + 1))
    assert best[most] == whole


def test_large_samples_are_worth_more_than_their_share():
    """Two of 13 crops share no row of 24, so Fekete and Schepers' function for k = 1 makes each a row: two parts to one
    of 13 / 24. Twelve of 2 fill a row, so they are worth their share."""
    whole, worth = worth_of(of_crops(13, 13, 13), 24)
    assert worth[13] / whole == (2 * 1 + 13 / 24) / 3
    whole, worth = worth_of(of_crops(*[2] * 12), 24)
    assert worth[2] / whole == 2 / 24


def test_fewer_rows_of_large_images_among_documents():
    any_resolution = MIXTURES[-1]
    for seed in (0, 1):
        sizes, room = windows_of(draw(any_resolution, 2048, seed), any_resolution.length)["balance"]
        full = (room.positions, room.crops, 1, 1)
        others = [fill(alike(sizes, [1], full), full) for fill in (filling._in_step, filling._hardest_first)]
        assert len(filling.pack(sizes, room)) < 0.995 * min(map(len, others))


def test_time_is_bounded(monkeypatch):
    """With no looks left each sample but the first is looked for once."""
    monkeypatch.setattr(look_ahead, "LOOKS", 0)
    sizes, room = windows_of(draw(MIXTURES[-1], 512, 0), 4096)["balance"]
    groups = alike(sizes, [1], (room.positions, room.crops, 1, 1))
    filler = LookAhead(groups, (room.positions, room.crops, 1, 1))
    rows = filler.rows()
    assert sorted(sum(rows, [])) == list(range(len(sizes))) and -len(sizes) <= filler._looks < 0
