"""A run of the real model on real rows, stopped and resumed."""

import dataclasses
import signal

import jax
import numpy as np
import tiny_run

from xgenmm_jax.data.rows import loader
from xgenmm_jax.training.config import load_config
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.objectives import packed_rows
from xgenmm_jax.training.sharding import MeshConfig

# Eight devices are test_step.py's subject; here they would only take time.
ONE = jax.devices()[:1]


def test_stopped_run_continues_bit_for_bit(tmp_path, monkeypatch):
    config = tiny_run.config(tiny_run.tokenizer(tmp_path), steps=6)
    config = dataclasses.replace(config, mesh=MeshConfig())
    unbroken = train(config, tmp_path / "unbroken", devices=ONE)
    batches = loader.batches

    def interrupted(*arguments):
        for number, batch in enumerate(batches(*arguments), start=1):
            if number == 3:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(packed_rows.loader, "batches", interrupted)
    stopped = train(config, tmp_path / "stopped", devices=ONE)
    assert (stopped.step, stopped.signal) == (3, signal.SIGTERM)
    monkeypatch.setattr(packed_rows.loader, "batches", batches)
    resumed = train(load_config(tmp_path / "stopped"), tmp_path / "stopped", devices=ONE)

    rows = [read_metrics(tmp_path / name) for name in ("unbroken", "stopped")]
    for name in ("step", "loss", "grad_norm", "learning_rate", "tokens", "samples", "fill"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]], name
    jax.tree.map(np.testing.assert_array_equal, unbroken.params, resumed.params)
    assert rows[0][-1]["loss"] < rows[0][0]["loss"] - 1
    assert (tmp_path / "stopped" / "tokenizer.model").read_bytes() == (tmp_path / "small.model").read_bytes()
