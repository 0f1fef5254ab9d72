"""Evaluation in the middle of a run: it is asked when it is due and changes nothing of the run."""

import dataclasses
import json
import signal
import time

import jax
import numpy as np
import pytest
import tiny_run

from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.nano.tasks import DrawnWorld
from xgenmm_jax.training.config import load_config
from xgenmm_jax.training.hosts.watchdog import Watchdog
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.sharding import MeshConfig

ONE = jax.devices()[:1]
FEW = DrawnWorld(groups=("handwriting", "caption"), items=3)


def config(tmp_path, every, suite=FEW):
    """The tower trains too, and rows are shuffled: nothing of a run is left out."""
    base = tiny_run.config(tiny_run.tokenizer(tmp_path), steps=6)
    return dataclasses.replace(base, mesh=MeshConfig(), freeze=(), evaluate=(suite,), evaluate_every=every)


def evaluations(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" not in row and "goodput" not in row]


def without_time(rows):
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def assert_same_run(folder, result, other_folder, other):
    rows = [without_time(read_metrics(path)) for path in (folder, other_folder)]
    assert rows[0] == rows[1] and len(rows[0]) == 6
    jax.tree.map(np.testing.assert_array_equal, result.params, other.params)
    assert result.progress[:3] == other.progress[:3]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, train(config(folder, 2), folder / "run", devices=ONE)


def test_a_run_that_is_evaluated_is_the_run_that_is_not(tmp_path, evaluated):
    folder, result = evaluated
    plain = train(config(tmp_path, 0), tmp_path / "run", devices=ONE)
    assert_same_run(tmp_path / "run", plain, folder / "run", result)
    assert not evaluations(tmp_path / "run")
    rows = evaluations(folder / "run")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"evaluation/handwriting", "evaluation/caption/exact", "evaluation/seconds"} <= rows[0].keys()


@pytest.mark.slow
def test_speed_does_not_count_the_seconds_of_evaluations(tmp_path, monkeypatch):
    def generate(self, prompts, *arguments, **options):
        time.sleep(1.0)
        return [""] * len(prompts)

    monkeypatch.setattr(Generator, "generate", generate)
    run = dataclasses.replace(config(tmp_path, 3), steps=4)
    train(run, tmp_path / "run", devices=ONE)
    before, after = read_metrics(tmp_path / "run")[-2:]
    (evaluation,) = evaluations(tmp_path / "run")
    assert evaluation["evaluation/seconds"] >= 2.0
    assert after["seconds"] - before["seconds"] < 1.0
    assert (after["tokens"] - before["tokens"]) / after["tokens_per_second"] < 1.0


def test_the_second_evaluation_compiles_nothing_and_leaves_nothing_on_the_device(tmp_path, monkeypatch):
    compiled, live, counting = [], [], False
    original = Generator.generate

    def listen(event, *_, **__):
        if counting and event == "/jax/core/compile/backend_compile_duration":
            compiled[-1] += 1

    def generate(self, *arguments, **options):
        nonlocal counting
        counting = True
        compiled.append(0)
        try:
            return original(self, *arguments, **options)
        finally:
            counting = False

    at = Watchdog.at

    def told(self, step, doing):
        if doing == "reading rows":
            live.append(sum(array.nbytes for array in jax.live_arrays()))
        at(self, step, doing)

    jax.monitoring.register_event_duration_secs_listener(listen)
    monkeypatch.setattr(Generator, "generate", generate)
    monkeypatch.setattr(Watchdog, "at", told)
    train(config(tmp_path, 2), tmp_path / "run", devices=ONE)
    calls = len(compiled) // 3
    assert calls and not any(compiled[calls:])
    assert live[3] < live[2] + (1 << 18)  # the table of vision tokens alone is 1 MiB


@pytest.mark.slow
def test_a_signal_ends_an_evaluation_and_the_run_goes_on_as_if_it_had_not_come(tmp_path, evaluated, monkeypatch):
    folder, unbroken = evaluated
    original, calls = Generator.generate, []

    def generate(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 3:  # the first call of the second evaluation
            signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Generator, "generate", generate)
    stopped = train(config(tmp_path, 2), tmp_path / "run", devices=ONE)
    assert (stopped.step, stopped.signal, len(calls)) == (4, signal.SIGTERM, 3)
    assert [row["step"] for row in evaluations(tmp_path / "run")] == [2]
    monkeypatch.setattr(Generator, "generate", original)
    resumed = train(load_config(tmp_path / "run"), tmp_path / "run", devices=ONE)
    assert_same_run(tmp_path / "run", resumed, folder / "run", unbroken)
    assert [row["step"] for row in evaluations(tmp_path / "run")] == [2, 6]
    assert without_time(evaluations(tmp_path / "run"))[-1] == without_time(evaluations(folder / "run"))[-1]


@pytest.mark.slow
def test_a_kill_in_an_evaluation_loses_none_of_its_rows(tmp_path, evaluated, monkeypatch):
    """What was evaluated behind the last checkpoint is asked again, and its row is there once."""
    folder, unbroken = evaluated
    saving = dataclasses.replace(config(tmp_path, 2).checkpoint, every_steps=3)
    short = dataclasses.replace(config(tmp_path, 2), checkpoint=saving)

    class KilledError(BaseException):
        pass

    original, calls = Generator.generate, []

    def generate(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KilledError
        return original(self, *arguments, **options)

    monkeypatch.setattr(Generator, "generate", generate)
    with pytest.raises(KilledError):
        train(short, tmp_path / "run", devices=ONE)
    monkeypatch.setattr(Generator, "generate", original)
    resumed = train(short, tmp_path / "run", devices=ONE)
    assert_same_run(tmp_path / "run", resumed, folder / "run", unbroken)
    assert without_time(evaluations(tmp_path / "run")) == without_time(evaluations(folder / "run"))


def test_another_evaluation_does_not_keep_a_run_from_going_on(tmp_path, evaluated):
    folder, unbroken = evaluated
    other = dataclasses.replace(config(folder, 3, DrawnWorld(items=1)), evaluate_every=0)
    again = train(other, folder / "run", devices=ONE)
    jax.tree.map(np.testing.assert_array_equal, again.params, unbroken.params)


def test_what_cannot_be_evaluated_is_refused_before_a_folder_is_made(tmp_path):
    twice = dataclasses.replace(config(tmp_path, 2), evaluate=(FEW, DrawnWorld(groups=("caption",), items=1)))
    with pytest.raises(ValueError, match="both have a task 'caption/exact'"):
        train(twice, tmp_path / "run", devices=ONE)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        dataclasses.replace(twice, evaluate=())
    assert not (tmp_path / "run").exists()
