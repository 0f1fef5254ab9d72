"""A run of the real model on real rows, stopped and resumed."""

import dataclasses
import signal

import jax
import numpy as np
import tiny_run

from xgenmm_jax.data.rows import loader
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import load_config
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.objectives import packed_rows
from xgenmm_jax.training.sharding import MeshConfig

# Eight devices are test_step.py's subject; here they would only take time.
ONE = jax.devices()[:1]


def stop(config, folder, monkeypatch, step=3):
    batches = loader.batches

    def interrupted(*arguments):
        for number, batch in enumerate(batches(*arguments), start=1):
            if number == step:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(packed_rows.loader, "batches", interrupted)
    stopped = train(config, folder, devices=ONE)
    assert (stopped.step, stopped.signal) == (step, signal.SIGTERM)
    monkeypatch.setattr(packed_rows.loader, "batches", batches)


def assert_same_run(folder, result, other_folder, other):
    rows = [read_metrics(path) for path in (folder, other_folder)]
    for name in ("step", "loss", "grad_norm", "learning_rate", "tokens", "samples", "fill"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]], name
    jax.tree.map(np.testing.assert_array_equal, result.params, other.params)


def test_stopped_run_continues_bit_for_bit(tmp_path, monkeypatch):
    config = tiny_run.config(tiny_run.tokenizer(tmp_path), steps=6)
    config = dataclasses.replace(config, mesh=MeshConfig())
    unbroken = train(config, tmp_path / "unbroken", devices=ONE)
    stop(config, tmp_path / "stopped", monkeypatch)
    resumed = train(load_config(tmp_path / "stopped"), tmp_path / "stopped", devices=ONE)

    assert_same_run(tmp_path / "unbroken", unbroken, tmp_path / "stopped", resumed)
    losses = [row["loss"] for row in read_metrics(tmp_path / "unbroken")]
    assert losses[-1] < losses[0] - 1
    assert (tmp_path / "stopped" / "tokenizer.model").read_bytes() == (tmp_path / "small.model").read_bytes()


def test_stopped_run_goes_on_with_other_weights(tmp_path, monkeypatch):
    """Bit for bit as a run whose config had the weights of before and of then as phases."""
    config = tiny_run.config(tiny_run.tokenizer(tmp_path), steps=6)

    def weighted(first, second, phases=()):
        mixture = ((Synthetic("caption", 400), first), (Synthetic("ocr", 400), second))
        data = dataclasses.replace(config.data, mixture=mixture, window=24, phases=phases)
        return dataclasses.replace(config, mesh=MeshConfig(), data=data)

    stop(weighted(3.0, 1.0), tmp_path / "stopped", monkeypatch)
    resumed = train(weighted(1.0, 3.0), tmp_path / "stopped", devices=ONE)
    phases = load_config(tmp_path / "stopped").data.phases
    assert [weights for _, weights in phases] == [(3.0, 1.0), (1.0, 3.0)] and phases[1][0] > 0
    unbroken = train(weighted(1.0, 3.0, phases), tmp_path / "unbroken", devices=ONE)
    assert_same_run(tmp_path / "unbroken", unbroken, tmp_path / "stopped", resumed)
