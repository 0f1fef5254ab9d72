"""What tells data apart: bytes and numbers of records, not places and times."""

import json
import os
import shutil

import pytest

from xgenmm_jax.data import identity as module
from xgenmm_jax.data.identity import fingerprint, identity
from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.data.readers.records import RecordFiles, write_records
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.nano.sources import Squash, Synthetic


def llava(path, count):
    turns = [{"from": "human", "value": "Red?"}, {"from": "gpt", "value": "Yes."}]
    path.write_text(json.dumps([{"id": str(number), "conversations": turns} for number in range(count)]))
    return LlavaJson(str(path), str(path.parent))


def shard(path, count):
    turns = (Turn("user", "Red?"), Turn("assistant", "Yes."))
    write_records(path, [(Conversation(f"{path.stem}/{number}", (), turns), []) for number in range(count)])


def test_each_source_says_its_records_and_its_files(tmp_path):
    for name, count in (("b", 3), ("a", 2)):
        shard(tmp_path / f"{name}.array_record", count)
    mixture = (
        (llava(tmp_path / "data.json", 5), 1.0),
        (RecordFiles(str(tmp_path / "*.array_record")), 1.0),
        (Mapped(Synthetic("caption", 70), Squash(32)), 1.0),
    )
    identities = identity(mixture)
    assert [(one["source"], one["records"]) for one in identities] == [
        ("llava/data", 5), (str(tmp_path / "*.array_record"), 5), ("synthetic/caption/32px", 70)
    ]  # fmt: skip
    names = [[file["name"] for file in one["files"]] for one in identities]
    assert names == [["data.json"], ["a.array_record", "b.array_record"], []]
    json.dumps(identities)


def test_places_and_times_do_not_count(tmp_path):
    before = identity(((llava(tmp_path / "data.json", 5), 1.0),))
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "data.json", tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere" / "data.json", (1, 1))
    moved = LlavaJson(str(tmp_path / "elsewhere" / "data.json"), str(tmp_path))
    assert identity(((moved, 1.0),)) == before


@pytest.mark.parametrize("offset", [0, 465, 999])
def test_a_large_file_is_identified_by_pieces_of_it(tmp_path, monkeypatch, offset):
    monkeypatch.setattr(module, "WHOLE_BYTES", 100)
    monkeypatch.setattr(module, "PIECE_BYTES", 40)
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(1000))
    before = fingerprint(file)
    assert (before["bytes"], before["of"]) == (1000, "pieces") and fingerprint(file) == before
    data = bytearray(1000)
    data[offset] = 1
    file.write_bytes(data)
    assert fingerprint(file)["sha256"] != before["sha256"]
    file.write_bytes(bytes(1001))
    assert fingerprint(file) != before


def test_a_small_file_is_told_by_all_of_it(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    assert fingerprint(tmp_path / "a")["of"] == "whole"
    assert fingerprint(tmp_path / "a")["sha256"] != fingerprint(tmp_path / "b")["sha256"]
