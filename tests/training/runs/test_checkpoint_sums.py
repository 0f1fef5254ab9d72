"""Checksums of a checkpoint's files by the hosts that wrote them."""

import dataclasses
import json
import os
from pathlib import Path
import threading
import zlib

import pytest
from started_hosts import run_hosts
import toy_run

from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.runs import checkpoint_files
from xgenmm_jax.training.runs.checkpoint_files import LIST_FILE, damage, has_checksums, write_list, write_sums
from xgenmm_jax.training.runs.checkpoints import Checkpoints


@pytest.fixture
def written(tmp_path) -> dict[str, bytes]:
    """The files of a checkpoint of two hosts, in `tmp_path`; those of orbax's metadata that are asked for too."""
    names = ("params/_METADATA", "params/manifest.ocdbt", "params/d/joined", "progress/metadata")
    own = [f"{item}/ocdbt.process_{host}/d/{item}" for item in ("params", "opt_state") for host in (0, 1)]
    content = {name: os.urandom(100) for name in (*names, *own)}
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return content


@pytest.fixture
def summed(monkeypatch) -> list[Path]:
    """The files that are read for their checksums."""
    read = []
    checksum = checkpoint_files._checksum
    monkeypatch.setattr(checkpoint_files, "_checksum", lambda path, *rest: read.append(path) or checksum(path, *rest))
    return read


def listed(folder: Path) -> dict[str, int]:
    return {name: entry["crc32"] for name, entry in json.loads((folder / LIST_FILE).read_text()).items()}


def test_a_host_reads_what_it_wrote_and_the_first_what_is_nobodys(tmp_path, written, summed):
    """Host 0 read the whole checkpoint back: at 4B 49 GB, through a mounted bucket."""
    write_sums(tmp_path, 1)
    assert {path.relative_to(tmp_path).parts[1] for path in summed} == {"ocdbt.process_1"} and len(summed) == 2
    write_sums(tmp_path, 0)
    summed.clear()
    write_list(tmp_path)
    assert not any("process" in str(path.relative_to(tmp_path)) for path in summed) and len(summed) == 4
    assert listed(tmp_path) == {name: zlib.crc32(data) for name, data in written.items()}
    assert not list(tmp_path.glob("files.process*"))
    assert damage(tmp_path, ("params",), (0, 1)) is None and has_checksums(tmp_path)


@pytest.mark.parametrize("harm", ["no sums", "torn", "grown since"])
def test_what_a_host_did_not_sum_host_0_reads(tmp_path, written, summed, harm):
    write_sums(tmp_path, 0)
    if harm != "no sums":
        write_sums(tmp_path, 1)
    if harm == "torn":
        (tmp_path / "files.process_1.json").write_text('{"a')
    if harm == "grown since":
        with (tmp_path / "params/ocdbt.process_1/d/params").open("ab") as file:
            file.write(b"more")
    summed.clear()
    write_list(tmp_path)
    assert sum("process_1" in str(path.relative_to(tmp_path)) for path in summed) == (1 if harm == "grown since" else 2)
    assert listed(tmp_path).keys() == written.keys() and damage(tmp_path, (), (0, 1)) is None


def test_where_time_is_short_sizes_are_listed_and_nothing_is_read(tmp_path, written):
    write_sums(tmp_path, 1, lambda: True)
    write_list(tmp_path, lambda: True)
    assert listed(tmp_path) == dict.fromkeys(written)
    assert damage(tmp_path, ("params",), (0, 1)) is None and not has_checksums(tmp_path)
    (tmp_path / "params/d/joined").write_bytes(b"short")
    assert damage(tmp_path, ("params",)) == "params/d/joined has 5 of 100 bytes"


def test_an_urgent_save_does_not_wait_for_checksums_of_the_one_before(tmp_path, monkeypatch):
    """They take minutes through a mount, and a spot host has half a minute."""
    events = toy_run.Events(terminate_at=4)
    monkeypatch.setattr(toy_run, "EVENTS", events)
    save, begun = Checkpoints.save, threading.Event()
    checksum = checkpoint_files._checksum

    def endless(path, is_urgent=lambda: False):
        begun.set()
        while not is_urgent():
            pass
        return checksum(path, is_urgent)

    def save_when_summing(self, state, progress, is_urgent=False):
        if is_urgent:
            assert begun.wait(60)
        save(self, state, progress, is_urgent)

    monkeypatch.setattr(checkpoint_files, "_checksum", endless)
    monkeypatch.setattr(Checkpoints, "save", save_when_summing)
    policy = CheckpointConfig(every_steps=3, every_seconds=0.0)
    train(dataclasses.replace(toy_run.config(), checkpoint=policy), tmp_path)
    assert checkpoint_files.steps(tmp_path / "checkpoints") == [4, 3]
    for step in ("3", "4"):
        folder = tmp_path / "checkpoints" / step
        assert damage(folder, ("params", "opt_state"), (0, 1)) is None and not has_checksums(folder)


@pytest.mark.slow
def test_two_hosts_list_every_file_with_its_checksum(tmp_path):
    ended = run_hosts(tmp_path, 2)
    assert [process.returncode for process in ended] == [0, 0], ended
    assert not any("has summed nothing" in process.stderr for process in ended)
    for step in checkpoint_files.steps(tmp_path / "run" / "checkpoints"):
        folder = tmp_path / "run" / "checkpoints" / str(step)
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert any("ocdbt.process_1/" in name for name in names)
        assert names - listed(folder).keys() <= {LIST_FILE, "_CHECKPOINT_METADATA", "commit_success.txt"}
        assert has_checksums(folder) and damage(folder, ("params", "opt_state"), (0, 1)) is None
