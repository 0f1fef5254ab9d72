"""The reference of a run is what it started with, wherever that came from and whatever became of it."""

import dataclasses
import json
import logging
import shutil
import signal

import jax
import numpy as np
import pytest
import tiny_run
import toy_run

from xgenmm_jax.data.rows import loader
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import CheckpointConfig, Initialize
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.objectives import packed_rows
from xgenmm_jax.training.objectives.dpo import DPO
from xgenmm_jax.training.runs import checkpoint_files, references
from xgenmm_jax.training.runs.checkpoints import restore_params
from xgenmm_jax.training.runs.run_folder import STARTED_WITH_FILE
from xgenmm_jax.training.sharding import MeshConfig

ONE = jax.devices()[:1]
CLOCK = ("seconds", "tokens_per_second", "tokens_per_second_per_device", "model_flops_per_second")


@pytest.fixture(autouse=True)
def events(monkeypatch):
    events = toy_run.Events()
    monkeypatch.setattr(toy_run, "EVENTS", events)
    return events


def figures(folder):
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in read_metrics(folder)]


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


@pytest.fixture
def base(tmp_path, events):
    """A run that was stopped at step 6 of 12, and its config."""
    config = dataclasses.replace(toy_run.config(), checkpoint=CheckpointConfig(every_steps=2, every_seconds=0.0))
    events.terminate_at = 6
    train(config, tmp_path / "base")
    events.terminate_at = 0
    return config


@pytest.fixture
def measured(tmp_path, base, events):
    """A run with a reference that began with the other's step 6: unbroken, and stopped at its own step 5."""
    config = dataclasses.replace(
        toy_run.config(),
        objective=toy_run.ToyLoss(reference=True),
        log_every=1,
        seed=3,
        initialize=Initialize(run=str(tmp_path / "base")),
    )
    unbroken = train(config, tmp_path / "unbroken")
    events.terminate_at = 5
    train(config, tmp_path / "run")
    events.terminate_at = 0
    return config, unbroken


@pytest.mark.slow
def test_dpo_goes_on_bit_for_bit_when_the_run_that_it_started_from_has_trained_on(tmp_path, monkeypatch):
    """Its reference was read anew from there, and every reward was another."""
    tokenizer = tiny_run.tokenizer(tmp_path)
    config = dataclasses.replace(tiny_run.config(tokenizer, steps=5), mesh=MeshConfig())
    batches = loader.batches

    def stopped(config, folder, step):
        def interrupted(*arguments):
            for number, batch in enumerate(batches(*arguments), start=1):
                if number == step:
                    signal.raise_signal(signal.SIGTERM)
                yield batch

        monkeypatch.setattr(packed_rows.loader, "batches", interrupted)
        assert train(config, folder, devices=ONE).step == step
        monkeypatch.setattr(packed_rows.loader, "batches", batches)

    stopped(config, tmp_path / "sft", 3)
    data = tiny_run.data(tokenizer, ((Synthetic("preference", 400), 1.0),), rows=4)
    data = dataclasses.replace(data, row=dataclasses.replace(data.row, segments=2))
    start = Initialize(run=str(tmp_path / "sft"))
    config_of_dpo = dataclasses.replace(
        config, name="dpo", data=data, objective=DPO(beta=0.5, chunk=32), initialize=start, steps=6
    )
    unbroken = train(config_of_dpo, tmp_path / "unbroken", devices=ONE)
    stopped(config_of_dpo, tmp_path / "dpo", 3)
    assert train(config, tmp_path / "sft", devices=ONE).step == 5
    assert_same(train(config_of_dpo, tmp_path / "dpo", devices=ONE), unbroken)
    assert figures(tmp_path / "dpo") == figures(tmp_path / "unbroken")
    assert figures(tmp_path / "dpo")[-1]["reward_chosen"] != 0

    # What is frozen is not there twice, and its files are listed as a checkpoint's.
    reference_folder = tmp_path / "dpo" / references.FOLDER
    listed = json.loads((reference_folder / checkpoint_files.LIST_FILE).read_text())
    assert all(entry["crc32"] is not None for entry in listed.values())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), unbroken.params)
    with pytest.raises(ValueError, match="vision/.* is missing"):
        restore_params(reference_folder, shapes)


@pytest.mark.parametrize("became", ["trained on", "gone", "another of more steps"])
def test_what_became_of_the_start_does_not_matter(tmp_path, base, measured, events, became):
    config, unbroken = measured
    if became == "trained on":
        assert train(base, tmp_path / "base").step == 12
        assert checkpoint_files.steps(tmp_path / "base" / "checkpoints") == [12, 10]
    else:
        shutil.rmtree(tmp_path / "base")
    if became == "another of more steps":
        train(dataclasses.replace(base, seed=8), tmp_path / "base")
    assert_same(train(config, tmp_path / "run"), unbroken)
    assert figures(tmp_path / "run") == figures(tmp_path / "unbroken")


@pytest.mark.parametrize("mesh, devices", [(MeshConfig(fsdp=4, tensor=2), 8), (MeshConfig(), 1)])
def test_it_is_read_onto_any_mesh(tmp_path, measured, mesh, devices):
    config, unbroken = measured
    shutil.rmtree(tmp_path / "base")
    config = dataclasses.replace(config, mesh=mesh)
    result = train(config, tmp_path / "run", devices=jax.devices()[:devices])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), result.params, unbroken.params)


def harm(folder):
    (file, *_) = [path for path in sorted((folder / "params").rglob("*")) if path.is_file() and "/d/" in str(path)]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("lack", ["gone", "damaged", "half written"])
def test_a_lost_reference_is_written_again_from_what_has_not_changed(tmp_path, measured, lack, caplog):
    config, unbroken = measured
    reference_folder = tmp_path / "run" / references.FOLDER
    if lack == "damaged":
        harm(reference_folder)
    elif lack == "gone":
        shutil.rmtree(reference_folder)
    else:
        reference_folder.rename(reference_folder.with_name(f"{reference_folder.name}{checkpoint_files.UNFINISHED}"))
    assert_same(train(config, tmp_path / "run"), unbroken)
    assert ("damaged" in caplog.text) == (lack == "damaged")
    assert references.is_whole(tmp_path / "run")
    assert not list((tmp_path / "run").glob(f"*{checkpoint_files.UNFINISHED}*"))


def test_a_lost_reference_is_read_from_the_checkpoint_of_then_where_that_is_still_there(tmp_path, base, measured):
    config, unbroken = measured
    shutil.rmtree(tmp_path / "run" / references.FOLDER)
    keeping = dataclasses.replace(base, checkpoint=dataclasses.replace(base.checkpoint, keep=9))
    train(keeping, tmp_path / "base")
    assert_same(train(config, tmp_path / "run"), unbroken)


def test_a_lost_reference_whose_start_has_changed_too_is_one_sentence(tmp_path, base, measured):
    config, _ = measured
    shutil.rmtree(tmp_path / "run" / references.FOLDER)
    train(base, tmp_path / "base")
    with pytest.raises(
        ValueError, match="initialize.run: .* checkpoint 6 before, 12 now: .* whose reference was read there and is not"
    ):
        train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ValueError, match="initialize.run: '.*base': gone: .* put it back as it was, or start anew"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / references.FOLDER).exists()


def test_a_run_of_before_takes_the_start_as_it_is_and_keeps_it(tmp_path, measured, caplog):
    """It has neither reference nor checksums to tell by."""
    config, unbroken = measured
    shutil.rmtree(tmp_path / "run" / references.FOLDER)
    (tmp_path / "run" / STARTED_WITH_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        assert_same(train(config, tmp_path / "run"), unbroken)
    assert "data and weights (for its reference) are taken for those that it began with" in caplog.text
    assert references.is_whole(tmp_path / "run")


def test_a_run_that_is_done_needs_no_reference(tmp_path, measured):
    config, unbroken = measured
    shutil.rmtree(tmp_path / "unbroken" / references.FOLDER)
    shutil.rmtree(tmp_path / "base")
    assert_same(train(config, tmp_path / "unbroken"), unbroken)


def test_a_run_without_one_keeps_none(tmp_path):
    train(toy_run.config(steps=3), tmp_path / "run")
    assert not (tmp_path / "run" / references.FOLDER).exists()
