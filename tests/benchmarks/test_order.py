"""The benchmark of the order: what it counts, and that a missed bound ends it with 1."""

import numpy as np
import pytest

from benchmarks import order, rounds
from xgenmm_jax.data.rows.order import Phase, draws


@pytest.fixture
def small(monkeypatch):
    for name, value in {"SHARDS": 100, "WINDOW_SAMPLES": 400, "JUMPS": 2}.items():
        monkeypatch.setattr(order, name, value)


def test_sources_are_of_the_papers_size():
    for source in order.sources(16):
        assert len(source.ends) == 50_000 and abs(source.ends[-1] / 2e8 - 1) < 0.001


def test_a_side_counts_the_shards_of_its_windows(small):
    side, whole = order.Windows(7), order.Windows(7, group_shards=100)
    assert side.run(3) > 0 and whole.run(3) > 0
    phases = [Phase(0, tuple(order.mixtures.STAGE1.values()))]
    drawn = [draws(phases, order.sources(100), 0, 400, window) for window in (7, 8, 9)]
    counts = []
    for one in drawn:
        ends = [source.ends for source in order.sources(100)]
        pairs = zip(one.component.tolist(), one.record.tolist(), strict=True)
        counts.append(len({(c, int(np.searchsorted(ends[c], r, side="right"))) for c, r in pairs}))
    assert whole.info()["most_shards"] == max(counts)
    assert side.info()["most_shards"] < max(counts) and side.info()["grown_mb"] < 100


@pytest.mark.parametrize(("far", "shards", "grown", "missed"), [
    (0.011, 208, 30.0, 0), (0.016, 208, 30.0, 1), (0.011, 401, 30.0, 1), (0.011, 208, 101.0, 1), (0.02, 999, 999.0, 3),
])  # fmt: skip
def test_a_missed_bound_ends_it_with_1(monkeypatch, capsys, far, shards, grown, missed):
    def timed(makes, count, *_, **__):
        info = {"most_shards": shards, "grown_mb": grown}
        seconds = {"first": 0.01, "far": far, "one group": 0.012}
        return {name: rounds.Timed((seconds[name],) * count, info) for name in makes}, {}

    monkeypatch.setattr(rounds, "alternate", timed)
    assert order.main() == bool(missed)
    assert capsys.readouterr().out.count("MISSED") == missed
