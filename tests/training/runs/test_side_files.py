"""Files that tell about a run never keep it from going on."""

import dataclasses
import logging

import pytest
import toy_run

from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.hosts.watchdog import Beat, read_beats
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.profiling import ProfileConfig
from xgenmm_jax.training.runs.side_files import has_step, read_rows

ROW = b'{"step": 2, "loss": 1.5, "tokens": 7}\n'
FOREIGN = {
    "torn": b'{"step": 2, "lo',
    "torn and written on": b'{"step": 2, "lo{"step": 3, "loss": 1.0}\n',
    "no step": b'{"loss": 1.0}\n',
    "no figures": b'{"step": 2}\n',
    "step in words": b'{"step": "2", "loss": 1.0}\n',
    "a fraction of a step": b'{"step": 2.5, "loss": 1.0}\n',
    "true": b'{"step": true, "loss": 1.0}\n',
    "words for figures": b'{"step": 2, "loss": 1.0, "note": "good"}\n',
    "a list": b"[1, 2]\n",
    "null": b"null\n",
    "zeros of a disk": b"\0" * 80 + b"\n",
    "no text": b"\xff\xfe\x00\x81{\n",
    "nested": b"[" * 100_000 + b"\n",
}


@pytest.fixture(autouse=True)
def events(monkeypatch):
    events = toy_run.Events()
    monkeypatch.setattr(toy_run, "EVENTS", events)
    return events


@pytest.fixture
def config():
    checkpoint = CheckpointConfig(every_steps=3, every_seconds=0.0)
    return dataclasses.replace(toy_run.config(steps=8), log_every=1, checkpoint=checkpoint)


@pytest.fixture
def stopped(tmp_path, config, events):
    events.terminate_at = 4
    train(config, tmp_path / "run")
    events.terminate_at = 0
    return tmp_path / "run"


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_line_that_is_no_row_is_left_out_and_told(stopped, config, caplog, kind):
    """One such line and the run could not go on."""
    file = stopped / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    foreign = FOREIGN[kind].rstrip(b"\n") + b"\n"
    file.write_bytes(b"".join([*lines[:2], foreign, *lines[2:]]))
    assert [row["step"] for row in read_metrics(stopped)] == [1, 2, 3, 4]
    with caplog.at_level(logging.WARNING):
        train(config, stopped)
    assert f"'{file}': 1 of 7 lines are no rows and are left out" in caplog.text
    assert [row["step"] for row in read_metrics(stopped)] == list(range(1, 9))
    assert file.read_bytes().count(b'"loss"') == 8 and foreign not in file.read_bytes()


@pytest.mark.parametrize("content", [b"\x00\xff\n", b'{"step": 2}\n{"figure', b"[]\nnull\n", b""])
def test_spikes_are_read_as_far_as_they_are_rows(stopped, config, content):
    (stopped / "spikes.jsonl").write_bytes(content)
    train(config, stopped)
    assert [row["step"] for row in read_rows(stopped / "spikes.jsonl", has_step)] == ([2] if b"step" in content else [])


@pytest.mark.parametrize("name", ["metrics.jsonl", "spikes.jsonl", "tensorboard", "heartbeats", "profile"])
def test_what_lies_in_the_way_is_put_aside(stopped, config, name, caplog):
    """A folder where a file is to be, a file where a folder is to be."""
    path = stopped / name
    if name in ("metrics.jsonl", "spikes.jsonl"):
        path.unlink(missing_ok=True)
        (path / "inside").mkdir(parents=True)
    else:
        (path.rename(stopped / "old") if path.exists() else path).with_name(name).write_bytes(b"foreign")
    train(dataclasses.replace(config, watchdog_seconds=600.0, profile=ProfileConfig(6, 1)), stopped)
    assert (stopped / f"{name}.damaged").exists() and f"it is now '{name}.damaged'" in caplog.text
    assert [row["step"] for row in read_metrics(stopped)][-4:] == [5, 6, 7, 8]


def test_the_profiler_of_somebody_else_is_no_reason_to_stop(tmp_path, config, monkeypatch, caplog):
    def start(folder):
        raise RuntimeError("Profile has already been started.")

    monkeypatch.setattr("jax.profiler.start_trace", start)
    assert train(dataclasses.replace(config, profile=ProfileConfig(2, 1)), tmp_path / "run").step == 8
    assert "profile: steps 2 to 2 are not traced (Profile has already been started.)" in caplog.text


def test_foreign_heartbeats_are_no_beats(tmp_path):
    whole = '{"count": 3, "step": 4, "doing": "saving"}'
    for name, text in {
        "0.json": whole, "1.json": "[]", "2.json": '{"count": "3"}', "3.json": "\0\0", "x.json": whole,
        "4.json": "null", "5.json": '{"count": 3, "step": 4, "doing": "sleeping"}', "6.json": whole[:20],
        "7.json": "\ufeff" + whole,
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "8.json").write_bytes(b"\xff\xfe\x00")
    assert read_beats(tmp_path) == {0: Beat(3, 4, "saving"), 7: Beat(3, 4, "saving")}
