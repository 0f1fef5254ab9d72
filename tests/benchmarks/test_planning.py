"""The benchmark of planning: its rows are those of stage 1, and a missed bound ends it with 1."""

import dataclasses

import pytest

from benchmarks import planning
from experiments import recipes


@pytest.fixture
def small(monkeypatch):
    for name, value in {"SHARDS": 3, "SHARD_RECORDS": 20, "ROUNDS": 1, "WINDOWS": 1}.items():
        monkeypatch.setattr(planning, name, value)
    whole = planning.config_of
    monkeypatch.setattr(planning, "config_of", lambda folder: dataclasses.replace(whole(folder), window=100))


@pytest.mark.parametrize("least, missed", [(0.0, 0), (1e9, 1)])
def test_a_missed_bound_ends_it_with_1(small, monkeypatch, capsys, least, missed):
    monkeypatch.setattr(planning, "LEAST_ROWS", least)
    assert planning.main() == missed
    printed = capsys.readouterr().out
    assert printed.count("MISSED") == missed and "of 100 samples" in printed


def test_rows_are_those_of_stage_1(small, tmp_path):
    config = planning.config_of(str(tmp_path))
    assert (config.row.length, config.row.crops, config.batch_rows) == (recipes.ROW_LENGTH, 12, recipes.ROWS)
    [(_, rows)] = planning.measured(config)
    # About six samples a row, as docs/pods.md assumes.
    assert 10 <= rows <= 30
