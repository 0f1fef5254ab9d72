"""A run in a bucket is the run on a disk: the same figures, the same files, stopped and going on."""

import dataclasses

from buckets import gs_bucket
import pytest
import toy_run

from xgenmm_jax import files
from xgenmm_jax.paths import user_path
from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.profiling import ProfileConfig
from xgenmm_jax.training.runs import checkpoint_files

CLOCK = ("seconds", "tokens_per_second", "tokens_per_second_per_device")


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch, gs_bucket(patch) as url:
        yield url


@pytest.fixture
def folder(bucket, tmp_path):
    return user_path(f"{bucket}/{tmp_path.name}/run", "--workdir")


@pytest.fixture(autouse=True)
def events(monkeypatch):
    events = toy_run.Events()
    monkeypatch.setattr(toy_run, "EVENTS", events)
    return events


def config(**changes):
    checkpoint = CheckpointConfig(every_steps=2, every_seconds=0.0, keep=2, keep_every=4)
    return dataclasses.replace(toy_run.config(steps=9), log_every=1, checkpoint=checkpoint, **changes)


def figures(run):
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in read_metrics(run)]


def test_a_run_in_a_bucket_is_that_on_a_disk(folder, tmp_path, events):
    events.terminate_at = 5
    for run in (folder, tmp_path / "run"):
        assert train(config(profile=ProfileConfig(2, 1)), run).step == 5
    # What was logged after the last save is dropped and written again, as on a disk.
    events.terminate_at = 0
    for run in (folder, tmp_path / "run"):
        assert train(config(profile=ProfileConfig(2, 1)), run).step == 9
    assert figures(folder) == figures(tmp_path / "run") and len(figures(folder)) == 9
    names = [{name.split("/")[0] for name in files.tree(run)} for run in (folder, tmp_path / "run")]
    assert names[0] == names[1] == {
        "config.json", "commit", "started_with.json", "metrics.jsonl", "tensorboard", "checkpoints", "profile"
    }  # fmt: skip
    steps = [checkpoint_files.steps(run / "checkpoints") for run in (folder, tmp_path / "run")]
    assert steps[0] == steps[1] == [9, 8, 4]
    assert checkpoint_files.has_checksums(folder / "checkpoints" / "9")
    assert train(config(), folder).step == 9
