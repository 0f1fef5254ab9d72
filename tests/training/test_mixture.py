"""The mixture that a run has really seen stands in its metrics, in samples and in tokens."""

import dataclasses
import signal

import numpy as np
import pytest
import real_rows
import tiny_run

from xgenmm_jax.data.rows import loader
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics

WEIGHTS = {"caption": 45.0, "dense": 30.0, "interleaved": 15.0}
"""Sum to 90, as the paper's."""


@pytest.fixture
def config(tmp_path):
    mixture = tuple((Synthetic(family, 200), weight) for family, weight in WEIGHTS.items())
    data = dataclasses.replace(tiny_run.data(tiny_run.tokenizer(tmp_path), mixture, rows=8), window=60)
    row = dataclasses.replace(data.row, length=320, crops=8, images=8)
    return real_rows.config("shares", dataclasses.replace(data, row=row), steps=6)


def shares(row: dict, kind: str) -> dict[str, float]:
    """Of a line of metrics by the name of the family."""
    start = f"share/{kind}/synthetic/"
    return {name.removeprefix(start): value for name, value in row.items() if name.startswith(start)}


def counted(config) -> list[tuple[dict[str, float], dict[str, float]]]:
    """The same from the batches, counted by what stands in their rows."""
    samples, tokens, lines = dict.fromkeys(WEIGHTS, 0), dict.fromkeys(WEIGHTS, 0), []
    batches = loader.batches(config.data, config.seed)
    for _ in range(config.steps):
        one = next(batches)
        for ids, segments in zip(one.sample_ids, one.batch.segment_ids, strict=True):
            for number, id_ in enumerate(ids.split(" + "), start=1):
                family = next(family for family in WEIGHTS if id_.startswith(family))
                samples[family] += 1
                tokens[family] += int((segments == number).sum())
        lines.append(tuple({f: n / sum(counts.values()) for f, n in counts.items()} for counts in (samples, tokens)))
    batches.close()
    return lines


def test_every_line_of_metrics_has_the_shares_of_the_run_so_far(tmp_path, config):
    train(config, tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    for row, (samples, tokens) in zip(rows, counted(config), strict=True):
        assert shares(row, "samples") == pytest.approx(samples)
        assert shares(row, "tokens") == pytest.approx(tokens)
    # Weights are relative numbers of samples; a document takes more of the tokens.
    expected = {family: weight / 90 for family, weight in WEIGHTS.items()}
    assert shares(rows[-1], "samples") == pytest.approx(expected, abs=0.05)
    assert shares(rows[-1], "tokens")["interleaved"] > expected["interleaved"] + 0.05


def test_a_resumed_run_has_the_shares_of_an_unbroken_one(tmp_path, config):
    """They began anew with each start, so that the last line told of the last hours alone."""
    train(config, tmp_path / "unbroken")
    real_rows.EVENTS[4] = signal.SIGTERM
    assert train(config, tmp_path / "run").signal == signal.SIGTERM
    result = train(config, tmp_path / "run")
    for one, other in zip(*(read_metrics(tmp_path / name) for name in ("run", "unbroken")), strict=True):
        for kind in ("samples", "tokens"):
            assert shares(one, kind) == shares(other, kind), one["step"]
    assert np.sum([count for count, _ in result.progress.seen.values()]) == sum(
        len(ids.split(" + ")) for ids in ids_of(config)
    )


def ids_of(config) -> list[str]:
    batches = loader.batches(config.data, config.seed)
    ids = [row for _ in range(config.steps) for row in next(batches).sample_ids]
    batches.close()
    return ids
