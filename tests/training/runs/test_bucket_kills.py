"""The command, killed twice in its middle, in a bucket of another process: the run of a disk in the end."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from buckets import pointing_at, settings
import emulator
import numpy as np
import pytest
import several_hosts
import started_hosts

from xgenmm_jax import files
from xgenmm_jax.paths import user_path
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs import checkpoint_files

REPOSITORY = Path(__file__).parents[3]
EXPERIMENT = """
import dataclasses
import tiny_nano_run
from xgenmm_jax.training.config import CheckpointConfig

def config():
    checkpoint = CheckpointConfig(every_steps=4, every_seconds=0.0)
    return dataclasses.replace(tiny_nano_run.config(24), log_every=1, checkpoint=checkpoint)
"""
COMMAND = "import sys; from xgenmm_jax.cli.main import main; sys.exit(main())"
CLOCK = ("seconds", "tokens_per_second", "tokens_per_second_per_device", "model_flops_per_second")


def figures(run):
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in read_metrics(run)]


@pytest.fixture
def start(tmp_path):
    """Starts `xgenmm train` of nano's stage 1 with the smallest model in a folder."""
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    started = []

    def start(workdir, **environment):
        paths = f"{REPOSITORY}:{REPOSITORY / 'tests' / 'fixtures'}"
        fixed = {"PYTHONPATH": paths, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "train", str(tmp_path / "mine.py"), "--workdir", str(workdir)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | fixed | environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_run_in_a_bucket_that_is_killed_twice_ends_as_that_on_a_disk(tmp_path, start, monkeypatch):
    local = start(tmp_path / "local")
    assert local.wait(900) == 0, local.stderr.read()
    with emulator.in_own_process() as server, pointing_at(monkeypatch, server):
        run = user_path("gs://bucket/nano/run", "--workdir")
        for step in (4, 12):
            process = start(run, **settings(server))
            until = time.monotonic() + 900
            while not (saved := checkpoint_files.steps(run / "checkpoints")) or saved[0] < step:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.2)
            # While it goes its figures are there, those of a checkpoint before the checkpoint.
            assert [row["step"] for row in read_metrics(run)][:step] == list(range(1, step + 1))
            assert (run / "run.lock").is_file()
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert checkpoint_files.steps(run / "checkpoints")[0] < 24
        last = start(run, **settings(server))
        assert last.wait(900) == 0, last.stderr.read()
        assert figures(run) == figures(tmp_path / "local") and len(figures(run)) == 24
        assert checkpoint_files.steps(run / "checkpoints") == checkpoint_files.steps(tmp_path / "local/checkpoints")
        # The lines of the disk's run, but for the time that they took.
        names = [files.read_json(path / "config.json") for path in (run, tmp_path / "local")]
        assert names[0] == names[1] and not (run / "run.lock").exists()
        assert [one.name for one in (run / "tensorboard").iterdir()]


@pytest.mark.slow
def test_a_mistyped_bucket_is_one_sentence_of_the_command(tmp_path, start):
    with emulator.in_own_process() as server:
        began = time.monotonic()
        process = start("gs://buckett/run", **settings(server))
        _, said = process.communicate(timeout=300)
        assert process.returncode == 1 and time.monotonic() - began < 60
        assert said == "xgenmm train: --workdir: no bucket 'gs://buckett'; check its name, or make it.\n"


@pytest.mark.slow
def test_two_hosts_write_one_run_in_a_bucket_and_one_goes_on_alone(tmp_path, monkeypatch):
    """Host 1 is killed; of host 0 the lock and the heartbeats are in the bucket, too."""
    with emulator.in_own_process() as server, pointing_at(monkeypatch, server):
        run = user_path("gs://bucket/run", "--workdir")
        (tmp_path / "stage.py").write_text(started_hosts.EXPERIMENT.format(watchdog_s=0.0))
        words = ["train", "stage.py", "--workdir", str(run)]
        variables = {"XGENMM_TOY_EVENTS": "host=1,kill_at=8", "XGENMM_TOY_RUN": str(run), **settings(server)}
        survivor, killed = several_hosts.run_hosts(tmp_path, 2, words, variables)
        assert killed.returncode == -9 and survivor.returncode == 75, survivor.stderr
        assert "host 0 of 2 ends: host 1 gives no sign of life, last heard of" in survivor.stderr
        assert checkpoint_files.steps(run / "checkpoints") == [5]
        (alone,) = several_hosts.run_hosts(tmp_path, 1, words, settings(server))
        assert alone.returncode == 0, alone.stderr
        assert [row["step"] for row in read_metrics(run)] == list(range(1, 13))
        assert checkpoint_files.steps(run / "checkpoints") == [12, 10]
        words[-1] = "local"
        (local,) = several_hosts.run_hosts(tmp_path, 1, words)
        assert local.returncode == 0, local.stderr
        losses = [[row["loss"] for row in read_metrics(path)] for path in (run, tmp_path / "local")]
        np.testing.assert_allclose(*losses, rtol=1e-5)
