"""Checkpoints that were damaged, kept by policy, and read onto another mesh."""

import dataclasses
import json
import logging
from pathlib import Path
import shutil

import jax
import numpy as np
import pytest
import toy_run

from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.runs import checkpoint_files
from xgenmm_jax.training.runs.checkpoints import Checkpoints, newest, restore_params
from xgenmm_jax.training.sharding import MeshConfig


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run with checkpoints at 3, 6 and 9."""
    folder = tmp_path_factory.mktemp("run")
    policy = CheckpointConfig(every_steps=3, every_seconds=0.0, keep=3)
    config = dataclasses.replace(toy_run.config(steps=9), checkpoint=policy)
    return config, folder, train(config, folder)


def arrays(step: Path) -> list[Path]:
    """Files that hold numbers, the largest first."""
    files = [path for path in (step / "params").rglob("*") if path.is_file() and "/d/" in str(path)]
    return sorted(files, key=lambda path: -path.stat().st_size)


def truncate(step: Path) -> None:
    file = arrays(step)[0]
    file.write_bytes(file.read_bytes()[:-20])


def flip_a_bit(step: Path) -> None:
    file = arrays(step)[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def garbage_without_list(step: Path) -> None:
    """As an earlier version, which wrote no list, would leave it: only reading tells."""
    (step / checkpoint_files.LIST_FILE).unlink()
    for file in arrays(step):
        file.write_bytes(b"\0" * file.stat().st_size)


DAMAGE = {
    "metadata missing": (lambda step: (step / "params" / "_METADATA").unlink(), "params/_METADATA is missing"),
    "array truncated": (truncate, "bytes"),
    "one bit flipped": (flip_a_bit, "holds other bytes than were written"),
    "garbage": (garbage_without_list, ""),
    "optimizer state gone": (lambda step: shutil.rmtree(step / "opt_state"), "opt_state/_METADATA is missing"),
    "progress empty": (lambda step: (step / "progress" / "metadata").write_text(""), "progress/metadata has 0 of"),
    "list cut": (lambda step: (step / checkpoint_files.LIST_FILE).write_text('{"a'), "files.json is not JSON"),
    "list of another type": (
        lambda step: (step / checkpoint_files.LIST_FILE).write_text("[1]"),
        "files.json holds a list, wanted an object",
    ),
}


@pytest.mark.parametrize(
    "text", ["[]", "7", "null", '{"a": 1}', '{"a": {"bytes": 1}}', '{"a": {"bytes": "1", "crc32": 1}}']
)
def test_a_list_of_another_form_is_damage(tmp_path, text):
    """It was an AttributeError or a KeyError, which ended the run where an older checkpoint would have served."""
    (tmp_path / checkpoint_files.LIST_FILE).write_text(text)
    assert checkpoint_files.damage(tmp_path, ()).startswith("files.json ")
    assert not checkpoint_files.has_checksums(tmp_path)


# Reads that orbax has under way when one of them fails complain about its closed event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(ran, tmp_path, caplog, kind):
    """The run reaches the same end from the checkpoint before."""
    config, finished, result = ran
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    harm, cause = DAMAGE[kind]
    harm(folder / "checkpoints" / "9")
    with caplog.at_level(logging.WARNING):
        again = train(config, folder)
    assert f"{folder}/checkpoints/9' is damaged" in caplog.text and cause in caplog.text
    assert (folder / "checkpoints" / "9.damaged").is_dir()
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)
    assert newest(folder).name == "9" and checkpoint_files.damage(newest(folder), ("params",), (0, 1)) is None


def test_a_step_may_be_damaged_again(ran, tmp_path):
    """Saves are scheduled, so steps come again; the one put aside before was in the way."""
    config, finished, _ = ran
    shutil.copytree(finished, tmp_path / "run")
    for _ in range(3):
        truncate(tmp_path / "run" / "checkpoints" / "9")
        train(config, tmp_path / "run")
    aside = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.damaged*"))
    assert aside == ["9.damaged", "9.damaged.2", "9.damaged.3"]


@pytest.mark.parametrize(
    ("error", "with_list"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), False),
        (TimeoutError("the bucket did not answer"), False),
        (KeyError("some bug"), True),
    ],
)
def test_what_is_not_damaged_stays(ran, tmp_path, monkeypatch, error, with_list):
    """A smaller mesh that runs out of memory put every checkpoint of a run aside."""
    config, finished, _ = ran
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(finished, tmp_path / "run")
    if not with_list:
        (checkpoints / "9" / checkpoint_files.LIST_FILE).unlink()

    def fail(*arguments):
        raise error

    monkeypatch.setattr(Checkpoints, "_read", fail)
    with pytest.raises(ValueError, match="9' was not read .*, and nothing says that it is damaged"):
        train(config, tmp_path / "run")
    assert sorted(path.name for path in checkpoints.iterdir() if path.is_dir()) == ["3", "6", "9"]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(ran, tmp_path):
    config, finished, _ = ran
    shutil.copytree(finished, tmp_path / "run")
    for step in (tmp_path / "run" / "checkpoints").glob("?"):
        truncate(step)
    with pytest.raises(ValueError, match="all of .* are damaged; mend one"):
        train(config, tmp_path / "run")


def test_readers_skip_what_is_cut_short(ran, tmp_path, caplog):
    """Evaluation and the next stage start from the newest whole one, and move nothing."""
    _, finished, _ = ran
    shutil.copytree(finished, tmp_path / "run")
    truncate(tmp_path / "run" / "checkpoints" / "9")
    assert newest(tmp_path / "run").name == "6" and "9' is damaged" in caplog.text
    assert (tmp_path / "run" / "checkpoints" / "9").is_dir()


def test_what_a_killed_run_was_writing_is_told_and_removed(ran, tmp_path, caplog):
    config, finished, result = ran
    shutil.copytree(finished, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    half = checkpoints / "9.orbax-checkpoint-tmp"
    (checkpoints / "9").rename(half)
    shutil.rmtree(half / "opt_state")
    again = train(config, tmp_path / "run")
    assert f"{half}' was not written to its end" in caplog.text and not half.exists()
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)


def test_the_list_holds_every_file_that_will_not_change(ran):
    _, folder, _ = ran
    step = folder / "checkpoints" / "9"
    listed = json.loads((step / checkpoint_files.LIST_FILE).read_text())
    there = {str(path.relative_to(step)) for path in step.rglob("*") if path.is_file()}
    assert there - set(listed) == {checkpoint_files.LIST_FILE, "_CHECKPOINT_METADATA", "commit_success.txt"}
    assert all(entry["crc32"] is not None for entry in listed.values())
    # Hosts share the reading: what one does not read it does not judge.
    assert checkpoint_files.damage(step, ("params",), (0, 2)) is None is checkpoint_files.damage(step, (), (1, 2))


def test_the_newest_and_every_mth_are_kept(tmp_path):
    policy = CheckpointConfig(every_steps=1, every_seconds=0.0, keep=2, keep_every=4)
    train(dataclasses.replace(toy_run.config(steps=10), checkpoint=policy), tmp_path)
    assert checkpoint_files.steps(tmp_path / "checkpoints") == [10, 9, 8, 4]


@pytest.mark.parametrize("mesh, devices", [(MeshConfig(fsdp=4, tensor=2), 8), (MeshConfig(), 1), (MeshConfig(2, 4), 8)])
def test_a_run_goes_on_on_another_mesh(ran, tmp_path, mesh, devices):
    """Saved under fsdp=8; every parameter is read bit for bit, and the optimizer goes on from where it was."""
    config, finished, result = ran
    shutil.copytree(finished, tmp_path / "run")
    elsewhere = train(dataclasses.replace(config, mesh=mesh), tmp_path / "run", devices=jax.devices()[:devices])
    jax.tree.map(np.testing.assert_array_equal, elsewhere.params, result.params)
    (shards,) = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(elsewhere.params)}
    assert shards == devices
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "9")
    late = train(dataclasses.replace(config, mesh=mesh), tmp_path / "run", devices=jax.devices()[:devices])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), late.params, result.params)
    whole = restore_params(tmp_path / "run", jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=leaf.sharding), result.params))  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, whole, late.params)
