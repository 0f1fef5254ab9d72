"""Leaps of loss and gradient norm are kept with their samples, noise and falls are not."""

import dataclasses

import numpy as np
import toy_run

from xgenmm_jax.training.loop import train
from xgenmm_jax.training.runs.side_files import has_step, read_rows
from xgenmm_jax.training.spikes import Spikes, spikes_file


def judged(tmp_path, losses, grad_norms=None):
    spikes = Spikes(tmp_path, 0)
    for step, loss in enumerate(losses, start=1):
        norm = 1.0 if grad_norms is None else grad_norms[step - 1]
        spikes.judge(step, {"loss": loss, "grad_norm": norm}, [f"sample {step}"])
    return [(row["step"], row["figure"]) for row in read_rows(tmp_path / spikes_file(0), has_step)]


def test_a_leap_is_kept_and_does_not_hide_the_next(tmp_path):
    rng = np.random.default_rng(0)
    losses, norms = rng.normal(2.0, 0.1, 120), rng.lognormal(0.0, 0.3, 120)
    losses[59] = losses[60] = 5.0
    norms[89] = 30.0
    assert judged(tmp_path, losses.tolist(), norms.tolist()) == [(60, "loss"), (61, "loss"), (90, "grad_norm")]


def test_a_steep_start_and_noise_near_zero_are_no_leaps(tmp_path):
    rng = np.random.default_rng(1)
    steep = 10.0 * np.exp(-np.arange(60) / 10)
    near_zero = np.abs(rng.normal(0.0, 0.05, 200))
    assert judged(tmp_path, [*steep.tolist(), *near_zero.tolist()]) == []


def test_the_loop_finds_a_leap_between_two_lines_of_metrics(tmp_path, monkeypatch, caplog):
    """And a run that goes on from before it writes it once."""
    monkeypatch.setattr(toy_run, "EVENTS", toy_run.Events(leap_at=33))
    config = dataclasses.replace(toy_run.config(steps=40), log_every=10)
    train(config, tmp_path)
    rows = read_rows(tmp_path / "spikes.jsonl", has_step)
    assert {row["step"] for row in rows} == {33} and {row["figure"] for row in rows} >= {"loss"}
    assert rows[0]["samples"][2] == "toy/33/2" and len(rows[0]["samples"]) == 16
    assert "step 33: loss" in caplog.text and "toy/33/0" in caplog.text
    Spikes(tmp_path, 32)
    assert read_rows(tmp_path / "spikes.jsonl", has_step) == []
