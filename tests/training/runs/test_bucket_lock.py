"""One process at a time in a run folder of a bucket, which itself says who was first."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from xgenmm_jax import files
from xgenmm_jax.paths import user_path
from xgenmm_jax.requests import RequestError
from xgenmm_jax.training.runs import run_lock
from xgenmm_jax.training.runs.run_lock import LOCK_FILE, Pace, RunLock, parse

REPOSITORY = Path(__file__).parents[3]
PACE = Pace(0.5, 6.0, 0.1)

HOLD = """
import sys, time
from xgenmm_jax.paths import user_path
from xgenmm_jax.requests import RequestError
from xgenmm_jax.training.runs import run_lock
elsewhere = sys.argv[2]
if elsewhere:
    run_lock.machine = lambda: elsewhere
run_lock.BUCKET_PACE = run_lock.Pace(0.5, 6.0, 0.1)
folder = user_path(sys.argv[1], "--workdir")
print("starting", flush=True)
sys.stdin.readline()
try:
    with run_lock.RunLock(folder) as lock:
        print("held", flush=True)
        while True:
            time.sleep(0.05)
            lock.check()
except ValueError as error:
    print(error, flush=True)
    sys.exit(1)
"""


@pytest.fixture
def folder(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "BUCKET_PACE", PACE)
    return user_path(f"{bucket}/{tmp_path.name}", "--workdir")


@pytest.fixture
def start():
    """Starts a process that takes a folder when it is told to, and holds it."""
    started = []

    def start(folder, elsewhere=""):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), elsewhere],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "starting\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process


def holding(process):
    assert go(process).stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_a_killed_one_blocks_nothing(folder, start):
    first = holding(start(folder))
    with pytest.raises(ValueError, match=f"another process is at work in '{folder}' .*, pid {first.pid}, since "):
        RunLock(folder).acquire()
    first.send_signal(signal.SIGKILL)
    first.wait()
    began = time.monotonic()
    with RunLock(folder):
        assert time.monotonic() - began < PACE.silent_s
        assert parse((folder / LOCK_FILE).read_bytes()).pid == os.getpid()
    assert files.tree(folder) == {}


def test_a_holder_on_another_machine_lives_as_long_as_it_counts(folder, start):
    first = holding(start(folder, "another machine"))
    with pytest.raises(ValueError, match=f"another process .*pid {first.pid}"):
        RunLock(folder).acquire()
    began = time.monotonic()
    first.send_signal(signal.SIGSTOP)
    with RunLock(folder) as lock:
        assert time.monotonic() - began > PACE.silent_s / 2
        first.send_signal(signal.SIGCONT)
        said, _ = first.communicate(timeout=60)
        assert first.returncode == 1 and "has taken over" in said and f"pid {os.getpid()}" in said
        lock.check()


@pytest.mark.parametrize("left", ["nothing", "of a dead process"])
def test_of_several_that_start_at_the_same_moment_one_succeeds(folder, start, left):
    if left != "nothing":
        dead = holding(start(folder))
        dead.kill()
        dead.wait()
    processes = [start(folder) for _ in range(3)]
    for process in processes:
        go(process)
    answers = [process.stdout.readline() for process in processes]
    assert sum(answer == "held\n" for answer in answers) == 1, answers
    assert sum("another process is at work" in answer for answer in answers) == 2, answers


def test_a_bucket_that_does_not_answer_for_a_moment_loses_nothing(folder, monkeypatch):
    """The beat that failed is no reason to end a run."""

    read = run_lock.buckets.read

    def silent(path):
        raise RequestError(f"'{path}' cannot be read (no answer in 60 s)")

    with RunLock(folder) as lock:
        monkeypatch.setattr(run_lock.buckets, "read", silent)
        time.sleep(3 * PACE.beat_s)
        monkeypatch.setattr(run_lock.buckets, "read", read)
        lock.check()
    assert files.tree(folder) == {}
