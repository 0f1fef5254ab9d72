"""A run in a bucket is the run on a disk: the same figures, the same files, stopped and going on."""

import dataclasses
import logging

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
import tiny_run
import toy_run

from xgenmm_jax import files
from xgenmm_jax.paths import BucketPath, user_path
from xgenmm_jax.training.config import CheckpointConfig, Initialize
from xgenmm_jax.training.hosts.watchdog import read_beats
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.profiling import ProfileConfig
from xgenmm_jax.training.runs import checkpoint_files, references
from xgenmm_jax.training.runs.checkpoints import newest, restore_params
from xgenmm_jax.training.runs.run_folder import check_same, prepare

CLOCK = ("seconds", "tokens_per_second", "tokens_per_second_per_device")


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


@pytest.mark.slow
def test_a_checkpoint_that_was_not_written_to_its_end_is_none(folder, events, caplog):
    """A kill leaves it under its own name: nothing is renamed."""
    events.terminate_at = 4
    train(config(), folder)
    events.terminate_at = 0
    for name in (checkpoint_files.COMMITTED, checkpoint_files.LIST_FILE):  # the last two files
        (folder / "checkpoints" / "4" / name).unlink()
    assert checkpoint_files.steps(folder / "checkpoints") == [2]
    assert newest(folder) == folder / "checkpoints" / "2"
    with caplog.at_level(logging.WARNING):
        assert train(config(), folder).step == 9
    assert f"'{folder}/checkpoints/4' was not written to its end and is left out" in caplog.text
    assert [row["step"] for row in read_metrics(folder)] == list(range(1, 10))
    assert checkpoint_files.steps(folder / "checkpoints") == [9, 8, 4]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_is_used(folder, tmp_path, events, caplog):
    train(config(), tmp_path / "run")
    events.terminate_at = 6
    train(config(), folder)
    events.terminate_at = 0
    newest_one = folder / "checkpoints" / "6"
    name = next(name for name in files.tree(newest_one) if name.startswith("params/") and "/d/" in name)
    data = (newest_one / name).read_bytes()
    files.write_whole(newest_one / name, data[:-1] + bytes([data[-1] ^ 1]))
    with caplog.at_level(logging.WARNING):
        train(config(), folder)
    assert f"'{newest_one}' is damaged" in caplog.text
    assert (folder / "checkpoints" / "6.damaged" / name).is_file()
    assert figures(folder) == figures(tmp_path / "run")


@pytest.mark.slow
def test_a_run_begins_with_weights_of_a_bucket(folder, tmp_path):
    """Of a run, of which nothing is copied to a disk, and of a file."""
    train(config(), folder)
    local = tmp_path / "first"
    for name in files.tree(folder):
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        files.copy(folder / name, local / name)
    for source, name in ((str(folder), "remote"), (str(local), "local")):
        train(config(name="second", initialize=Initialize(run=source)), tmp_path / name)
    assert figures(tmp_path / "remote") == figures(tmp_path / "local")
    begun = [files.read_json(tmp_path / name / "started_with.json") for name in ("remote", "local")]
    assert begun[0] == begun[1]
    vision = {"vision/kernel": np.ones((4, 8), np.float32)}
    weights = folder.parent / "vision.safetensors"
    files.write_whole(weights, lambda beside: save_file(vision, beside))
    train(config(name="third", initialize=Initialize(vision=str(weights)), freeze=("vision",)), tmp_path / "third")
    kernel = restore_params(tmp_path / "third", abstract(("vision", "kernel"), (4, 8)))["vision"]["kernel"]
    np.testing.assert_array_equal(kernel, vision["vision/kernel"])


def abstract(path, shape):
    leaf = jax.ShapeDtypeStruct(shape, np.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    return {path[0]: {path[1]: leaf}}


def test_weights_that_are_not_there_are_one_sentence(folder, tmp_path):
    for source, wanted in (
        (f"{folder}/none", rf"^checkpoint: '{folder}/none': no such folder; give a folder that `xgenmm train` wrote"),
        ("gs://buckett/none", r"^initialize.run: no bucket 'gs://buckett'; check its name, or make it.$"),
    ):
        with pytest.raises(ValueError, match=wanted):
            train(config(initialize=Initialize(run=source)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_checkpoints_at_s3_are_refused_before_anything_is_written():
    with pytest.raises(ValueError, match=r"^run folder: got 's3://b/run', wanted gs://BUCKET/... or a path .* mount"):
        train(config(), BucketPath("s3://b/run"))


@pytest.mark.slow
def test_references_and_heartbeats_lie_in_the_bucket(folder, tmp_path, events):
    objective = toy_run.ToyLoss(reference=True)
    for run in (folder, tmp_path / "run"):
        events.terminate_at = 3
        train(config(objective=objective, watchdog_seconds=600.0), run)
        events.terminate_at = 0
        train(config(objective=objective, watchdog_seconds=600.0), run)
    assert references.is_whole(folder) and figures(folder) == figures(tmp_path / "run")
    assert read_beats(folder / "heartbeats")[0].count >= 0


def test_the_tokenizer_lies_in_a_bucket(folder, tmp_path):
    local = tiny_run.tokenizer(tmp_path)
    remote = folder.parent / "small.model"
    files.copy(local, remote)
    run = tiny_run.config(local)
    there = dataclasses.replace(run, data=dataclasses.replace(run.data, tokenizer=str(remote)))
    prepare(there, folder)
    assert (folder / "tokenizer.model").read_bytes() == local.read_bytes()
    # Its bytes count and not its place; others are refused.
    assert check_same(there, folder) and check_same(run, folder)
    files.write_whole(remote, local.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=rf"'{folder}' was started with another tokenizer than '{remote}'"):
        check_same(there, folder)
    remote.unlink()
    with pytest.raises(ValueError, match=rf"^tokenizer: no file '{remote}'; wanted a SentencePiece model"):
        prepare(there, folder.parent / "second")
    assert not (folder.parent / "second").exists()
