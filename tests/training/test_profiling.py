"""Traces on request, of the steps that were asked for."""

import dataclasses
import os
import signal

import jax
import pytest
import toy_run

from xgenmm_jax.training.loop import train
from xgenmm_jax.training.profiling import ProfileConfig, Profiler


@pytest.fixture
def traced(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(folder.rpartition("/")[2]))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def test_the_steps_asked_for_are_traced(tmp_path, traced):
    asked = iter([False, False, False, False, True])  # before steps 1, 5, 6, 7 and 8: not where a trace begins or runs
    finished = []
    with Profiler(ProfileConfig(start_step=2, steps=3), tmp_path, lambda: next(asked)) as profiler:
        for step in range(1, 9):
            profiler.before(step)
            traced.append(step)
            profiler.after(step, lambda step=step: finished.append(step))
    # From step 2 on as configured; a signal before step 8 asks for more than the run has left.
    assert traced == [1, "step_2", 2, 3, 4, "stop", 5, 6, 7, "step_8", 8, "stop"] and finished == [4]


@pytest.mark.parametrize(("host", "expected"), [(0, []), (1, ["step_2", "stop"]), (3, ["step_2", "stop"])])
def test_the_hosts_asked_for_trace_and_others_when_a_signal_asks_them(tmp_path, traced, host, expected):
    """All hosts of a pod wrote a trace each, of the same step."""
    asked = iter([False, False, False, host == 0])
    with Profiler(ProfileConfig(2, 1, hosts=(1, 3)), tmp_path, lambda: next(asked, False), host=host) as profiler:
        for step in range(1, 4):
            profiler.before(step)
            profiler.after(step, lambda: None)
        assert traced == expected
        if host == 0:
            profiler.before(4)
    assert traced == (expected or ["step_4", "stop"])


def test_a_run_leaves_a_trace_for_tensorboard(tmp_path, monkeypatch):
    """One from the command line, one from SIGUSR1; the run's figures do not change."""
    batches = toy_run.toy_batches

    def signalled(*arguments):
        for step, batch in enumerate(batches(*arguments), start=1):
            if step == 8:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield batch

    monkeypatch.setattr(toy_run, "toy_batches", signalled)
    config = dataclasses.replace(toy_run.config(steps=10), profile=ProfileConfig(start_step=4, steps=2))
    train(config, tmp_path, devices=jax.devices()[:1])
    folders = sorted(path.relative_to(tmp_path / "profile").parts[0] for path in tmp_path.rglob("*.xplane.pb"))
    assert folders == ["step_4", "step_9"]


def test_senseless_profiles_are_refused():
    with pytest.raises(ValueError, match="profile: got start_step 3, steps 0"):
        ProfileConfig(start_step=3, steps=0)
    with pytest.raises(ValueError, match=r"profile.hosts: got \(\); wanted numbers of hosts"):
        ProfileConfig(hosts=())
