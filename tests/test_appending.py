"""Files that grow, on a disk and in a bucket, where nothing can be appended."""

import json
import logging
import time

import pytest

from xgenmm_jax import appending, files, requests
from xgenmm_jax.appending import FolderCopy, Lines
from xgenmm_jax.paths import user_path
from xgenmm_jax.training.runs.side_files import has_step, keep_rows, read_rows


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    if request.param == "disk":
        return tmp_path
    return user_path(f"{request.getfixturevalue('bucket')}/{tmp_path.name}", "--workdir")


@pytest.fixture
def in_bucket(bucket, tmp_path):
    return user_path(f"{bucket}/{tmp_path.name}", "--workdir")


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def row(step):
    return json.dumps({"step": step}) + "\n"


@pytest.mark.parametrize("stays_open", [False, True])
def test_lines_are_appended_to_what_is_there(folder, stays_open):
    for first in (0, 5):
        lines = Lines(folder / "a.jsonl", stays_open)
        for step in range(first, first + 5):
            lines.write(row(step))
        lines.close()
        assert files.read_text(folder / "a.jsonl") == "".join(map(row, range(first + 5)))
    appending.send_all()


def test_lines_are_seen_while_they_are_written(in_bucket, monkeypatch):
    monkeypatch.setattr(appending, "VISIBLE_S", 0.5)
    lines = Lines(in_bucket / "a.jsonl")
    lines.write(row(1))
    assert not (in_bucket / "a.jsonl").exists()
    until(lambda: (in_bucket / "a.jsonl").exists())
    lines.write(row(2))
    until(lambda: len(read_rows(in_bucket / "a.jsonl", has_step)) == 2)
    lines.close()


def test_what_waits_is_sent_before_a_save(in_bucket):
    lines = Lines(in_bucket / "a.jsonl")
    lines.write(row(1))
    appending.send_all()
    assert [one["step"] for one in read_rows(in_bucket / "a.jsonl", has_step)] == [1]
    lines.close()


def test_a_long_file_has_parts_that_are_joined(in_bucket, monkeypatch):
    """What is written is not written again and again."""
    monkeypatch.setattr(appending, "PART_BYTES", 40)
    path = in_bucket / "a.jsonl"
    for first in (0, 10):  # a process, and the next one that goes on
        lines = Lines(path)
        for step in range(first, first + 10):
            lines.write(row(step))
            appending.send_all()
        lines.close()
    parts = files.parts(path)
    assert [part.name for part in parts[:3]] == ["a.jsonl", "a.jsonl.2", "a.jsonl.3"] and len(parts) > 4
    assert all(files.size(part) >= 40 for part in parts[:-1])
    assert [one["step"] for one in read_rows(path, has_step)] == list(range(20))
    assert [one["step"] for one in keep_rows(path, has_step, 6)] == list(range(7))
    assert [one["step"] for one in read_rows(path, has_step)] == list(range(7))
    assert files.parts(path) == parts[: len(files.parts(path))] and len(files.parts(path)) < len(parts)


def test_a_bucket_that_does_not_answer_is_told_once_and_nothing_is_lost(in_bucket, monkeypatch, caplog):
    monkeypatch.setattr(appending, "VISIBLE_S", 0.2)
    write, fails = appending.buckets.write, [True]

    def failing(path, data):
        if fails:
            raise requests.RequestError(f"'{path}' cannot be written (no answer in 60 s)")
        write(path, data)

    monkeypatch.setattr(appending.buckets, "write", failing)
    lines = Lines(in_bucket / "a.jsonl")
    with caplog.at_level(logging.WARNING):
        lines.write(row(1))
        time.sleep(1.0)
        lines.write(row(2))
        fails.clear()
        until(lambda: len(read_rows(in_bucket / "a.jsonl", has_step)) == 2)
    told = [record.getMessage() for record in caplog.records if record.name == "xgenmm_jax.appending"]
    assert told == [
        f"'{in_bucket}/a.jsonl' is not up to date, and is tried again: '{in_bucket}/a.jsonl' cannot be written (no "
        "answer in 60 s)"
    ]
    lines.close()


def test_what_a_library_writes_is_copied(folder, monkeypatch):
    monkeypatch.setattr(appending, "VISIBLE_S", 0.2)
    copied = FolderCopy(folder / "profile")
    (copied.local / "a").mkdir(parents=True)
    (copied.local / "a" / "x.pb").write_bytes(b"1")
    copied.changed()
    until(lambda: files.tree(folder / "profile") == {"a/x.pb": 1})
    (copied.local / "a" / "x.pb").write_bytes(b"12")
    copied.changed()
    copied.close()
    assert files.tree(folder / "profile") == {"a/x.pb": 2}
