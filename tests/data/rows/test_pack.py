"""Which samples share a row: no budget exceeded, none lost, few rows, the same rows every time."""

import functools

from hypothesis import HealthCheck, given, settings, strategies
import numpy as np
import pytest

from benchmarks.packing_baselines import best_fit
from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.rows import filling, packing
from xgenmm_jax.data.rows.packing import Size

TEXT_OF_A_CROP = 128


@strategies.composite
def windows(draw) -> tuple[np.ndarray, Size]:
    """A row's room and sizes that fit it, many of them equal."""
    room = Size(*(draw(strategies.integers(1, most)) for most in (40, 12, 6, 5)))
    size = strategies.tuples(
        strategies.integers(1, room.positions),
        strategies.integers(0, room.crops),
        strategies.integers(0, room.images),
        strategies.integers(1, room.segments),
    )
    return np.array(draw(strategies.lists(size, max_size=40)), np.int64).reshape(-1, 4), room


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(windows())
def test_no_sample_is_lost_and_no_budget_exceeded(window):
    sizes, room = window
    rows = filling.pack(sizes, room)
    assert_whole(rows, sizes, room)
    assert rows == filling.pack(sizes.copy(), room)


def assert_whole(rows: list[list[int]], sizes: np.ndarray, room: Size) -> None:
    assert sorted(sample for row in rows for sample in row) == list(range(len(sizes)))
    for number, row in enumerate(rows):
        left = np.array(room) - sizes[row].sum(axis=0)
        assert (left >= 0).all()
        # It ended because nothing more fitted.
        later = [sample for other in rows[number + 1 :] for sample in other]
        assert not (sizes[later] <= left).all(axis=1).any()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(windows())
def test_of_equal_samples_the_earlier_comes_first(window):
    """A sort that is not stable would make rows that differ between versions of numpy."""
    sizes, room = window
    taken = [sample for row in filling.pack(sizes, room) for sample in row]
    for size in np.unique(sizes, axis=0):
        alike = [sample for sample in taken if (sizes[sample] == size).all()]
        assert alike == sorted(alike)


def test_rows_are_the_same_on_every_machine():
    """Written down once: rows are a run's order, and a resumed run must find them again."""
    one = [(9, 2, 1, 1), (9, 2, 1, 1), (3, 5, 2, 1), (6, 0, 0, 1), (2, 1, 1, 1), (1, 1, 1, 1), (4, 4, 2, 1)]
    rows = filling.pack(packing.array_of([Size(*size) for size in one]), Size(12, 6, 4, 8))
    assert rows == [[2, 3, 4], [0, 5], [1], [6]]


def test_a_sample_larger_than_a_row_is_our_mistake():
    with pytest.raises(AssertionError, match="exceeds the room of a row"):
        filling.pack(packing.array_of([Size(5, 1, 1, 1)]), Size(4, 9, 9, 9))


def lengths(rng: np.random.Generator, count: int, room: Size, crops: np.ndarray, text: float = 200.0) -> np.ndarray:
    """One image of given crops a sample and log-normal text."""
    tokens = np.clip(rng.lognormal(np.log(text), 0.8, count), 1, room.positions).astype(np.int64)
    positions = np.minimum(tokens + crops * TEXT_OF_A_CROP, room.positions)
    return np.stack([positions, crops, np.minimum(crops, 1), np.ones(count, np.int64)], axis=1)


def bound(sizes: np.ndarray, room: Size) -> int:
    """No packing makes fewer rows."""
    return int((-(-sizes.sum(axis=0) // np.array(room))).max())


@pytest.mark.parametrize("window", [8, 100, 2048])
@pytest.mark.parametrize("crops", [0, 1, 13])
def test_windows_of_one_class_of_crops(window, crops):
    """Only text, one view each, and only large images."""
    room = Size(4096, 16, 16, 64)
    sizes = lengths(np.random.default_rng(crops), window, room, np.full(window, crops))
    rows = len(filling.pack(sizes, room))
    assert rows <= len(best_fit(sizes.tolist(), room)) + 1
    if crops < 13:  # two of which do not share a row of 16
        assert rows <= 1.02 * bound(sizes, room) + 1
    else:
        assert rows == window


@pytest.mark.parametrize("window", [8, 100, 2048])
@pytest.mark.parametrize("seed", [0, 1])
def test_windows_of_more_than_thirty_classes_of_crops(window, seed):
    room, rng = Size(8192, 56, 16, 64), np.random.default_rng(seed)
    sizes = lengths(rng, window, room, rng.integers(0, 45, window), text=300.0)
    assert len(np.unique(sizes[:, 1])) > 30 or window < 2048
    assert len(filling.pack(sizes, room)) <= len(best_fit(sizes.tolist(), room)) + 1


def test_rows_with_few_segments_are_filled():
    """Fine-tuning's rows hold 4 samples: best fit, by twos and threes, made 5 % more rows."""
    room, rng = Size(6144, 40, 16, 4), np.random.default_rng(0)
    sizes = lengths(rng, 2048, room, rng.choice([3, 4, 5, 7, 9, 10, 13], 2048), text=300.0)
    assert len(filling.pack(sizes, room)) <= 1.02 * bound(sizes, room)


def test_pairs_take_two_segments_and_stay_whole():
    room, rng = Size(12_288, 36, 4, 8), np.random.default_rng(0)
    sizes = lengths(rng, 1024, room, rng.choice([3, 5, 7, 10], 1024)) * [2, 1, 1, 2]
    rows = filling.pack(sizes, room)
    assert sorted(sum(rows, [])) == list(range(1024)) and max(map(len, rows)) == 4
    assert len(rows) <= 1.02 * bound(sizes, room)


def test_images_are_a_budget_of_their_own():
    """An image of few crops and little text: images run out first."""
    room = Size(4096, 64, 3, 64)
    sizes = np.tile(np.array([[20, 1, 1, 1], [30, 2, 2, 1]]), (60, 1))
    assert len(filling.pack(sizes, room)) == 60


def test_layouts_are_remembered_by_size_and_config(monkeypatch):
    """A window measures each sample twice, and many images have one size."""
    found = []

    def layout(size_px, config):
        found.append((size_px, config))
        return anyres.layout(size_px, config)

    monkeypatch.setattr(packing, "_layout", functools.lru_cache(9)(layout))
    image = LazyImage((640, 480), lambda: None)
    one, other = AnyRes(), AnyRes(grids=((1, 2),))
    for config in (one, other, one):
        packing.layouts_of([image, image], config)
    assert found == [((640, 480), one), ((640, 480), other)]
