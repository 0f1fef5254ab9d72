"""A run over data some of which cannot be used: it reaches its end, and says what it left out."""

from collections import Counter
import dataclasses
import json
import logging
import signal

import jax
import numpy as np
import PIL.Image
import pytest
import real_rows
import tiny_run

from xgenmm_jax.data.errors import Skip
from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import ProgressBar, read_metrics
from xgenmm_jax.training.runs.skipped import SkippedLog, read_skipped


@pytest.fixture(autouse=True)
def no_events():
    real_rows.EVENTS.clear()


def config_of(folder, damaged: dict[int, str], leave_out: int = 0, steps: int = 12) -> TrainConfig:
    noise = PIL.Image.effect_noise((64, 64), 60).convert("RGB")
    for name, count in (("whole.jpg", None), ("cut.jpg", 900)):
        noise.save(folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:count])
    rows = []
    for n in range(40):
        turns = [{"from": "human", "value": "<image>\nred?"}, {"from": "gpt", "value": f"the circle {n}"}]
        rows.append({"id": f"r{n}", "image": damaged.get(n, "whole.jpg"), "conversations": turns})
    rows += [{"id": f"left{n}", "conversations": None} for n in range(leave_out)]
    (folder / "data.json").write_text(json.dumps(rows))
    source = LlavaJson(str(folder / "data.json"), str(folder))
    data = tiny_run.data(tiny_run.tokenizer(folder), ((source, 1.0),), rows=8)
    data = dataclasses.replace(data, window=24, row=dataclasses.replace(data.row, segments=2))
    return real_rows.config("skipping", data, steps)


def figures(folder) -> list[dict[str, float]]:
    clock = ("seconds", "tokens_per_second", "tokens_per_second_per_device")
    return [{name: value for name, value in row.items() if name not in clock} for row in read_metrics(folder)]


@pytest.mark.parametrize(
    "damaged", [{7: "cut.jpg"}, {7: "gone.jpg"}, {0: "cut.jpg", 7: "data.json", 20: "gone.jpg"}], ids=str
)
def test_a_run_goes_on_past_bad_records_and_counts_them(tmp_path, damaged, caplog):
    """One truncated JPEG ended a run in its middle, and every start after it at the same place."""
    with caplog.at_level(logging.WARNING):
        result = train(config_of(tmp_path, damaged), tmp_path / "run")
    rows, lines = read_metrics(tmp_path / "run"), read_skipped(tmp_path / "run" / "skipped.jsonl")
    assert result.step == rows[-1]["step"] == 12 and all(np.isfinite(row["loss"]) for row in rows)
    assert {line["record"] for line in lines} == {f"llava/data/r{n}" for n in damaged}
    assert all(line["source"] == "llava/data" and line["detail"] for line in lines)
    assert {line["reason"] for line in lines} <= {"unreadable image", "unreadable record"}
    for row in rows:
        assert row.get("skipped", 0) == sum(line["step"] <= row["step"] for line in lines)
    assert rows[-1]["skipped"] == len(lines) > len(damaged)
    by_reason = Counter(f"skipped/{line['source']}/{line['reason']}" for line in lines)
    assert {name: n for name, n in rows[-1].items() if name.startswith("skipped/")} == by_reason
    for n in damaged:
        assert caplog.text.count(f"left out llava/data/r{n} of llava/data") == 1


def test_a_run_over_whole_data_says_nothing(tmp_path):
    train(config_of(tmp_path, {}), tmp_path / "run")
    assert not any("skipped" in row for row in read_metrics(tmp_path / "run"))
    assert not (tmp_path / "run" / "skipped.jsonl").exists()


@pytest.mark.parametrize("stop_at", [1, 3, 7, 11])
def test_counts_of_a_resumed_run_are_those_of_an_unbroken_one(tmp_path, stop_at):
    """Neither twice nor not at all, wherever a window is cut; what was left out at opening is said once."""
    config = config_of(tmp_path, {7: "cut.jpg", 20: "gone.jpg"}, leave_out=3)
    train(config, tmp_path / "unbroken")
    real_rows.EVENTS[stop_at] = signal.SIGTERM
    assert train(config, tmp_path / "stopped").step == stop_at
    with (tmp_path / "stopped" / "skipped.jsonl").open("a") as file:  # what a killed run wrote of later steps
        file.write(json.dumps({"step": stop_at + 1, "record": "x", "count": 9}) + '\n{"step": 99, "rec')
    train(config, tmp_path / "stopped")
    assert figures(tmp_path / "stopped") == figures(tmp_path / "unbroken")
    texts = [(tmp_path / name / "skipped.jsonl").read_text() for name in ("unbroken", "stopped")]
    assert texts[0] == texts[1] and texts[0].count('"step": 0') == 1
    for row in figures(tmp_path / "stopped"):
        assert row["left_out/llava/data/without a 'conversations' list"] == 3
    [opened] = [line for line in read_skipped(tmp_path / "stopped" / "skipped.jsonl") if line["step"] == 0]
    assert (opened["count"], opened["record"]) == (3, "llava/data/left0")
    train(config, tmp_path / "stopped")  # done: nothing is opened, nothing is lost
    assert (tmp_path / "stopped" / "skipped.jsonl").read_text() == texts[0]


def test_figures_of_a_run_are_those_of_the_samples_that_are_left(tmp_path):
    """Bad images take their own samples away and change no row beside."""
    folders = [tmp_path / name for name in ("damaged", "whole")]
    for folder, damaged in zip(folders, ({7: "cut.jpg"}, {}), strict=True):
        folder.mkdir()
        train(config_of(folder, damaged, steps=4), folder / "run")
    rows, expected = (figures(folder / "run") for folder in folders)
    lost = [one["samples"] - other["samples"] for one, other in zip(expected, rows, strict=True)]
    assert all(one["fill"] <= other["fill"] for one, other in zip(rows, expected, strict=True)) and lost[-1] == 0
    steps = {line["step"] for line in read_skipped(folders[0] / "run" / "skipped.jsonl")}
    assert {one["step"] for one, other in zip(rows, expected, strict=True) if one["fill"] != other["fill"]} == steps


def test_the_progress_line_says_how_many(capsys):
    row = {"step": 5, "loss": 1.0, "tokens_per_second": 10.0, "fill": 0.5}
    counts = {"skipped": 1234, "skipped/a/x": 1, "skipped/b/y": 1200, "skipped/c/z": 33, "left_out/a/w": 7}
    for more, shown in (({}, False), (counts, True)):
        with ProgressBar("run", 0, 5) as bar:
            bar.show(row | more)
        line = capsys.readouterr().err
        assert ("skipped 1,234 (1,200 b/y, 33 c/z, ...)  left out at opening 7 (7 a/w)" in line) == shown


def test_each_host_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    log = SkippedLog(tmp_path, 0)
    log.add(3, [Skip("s", "r", "unreadable image", "x"), Skip("s", "r", "unreadable image", "x")])
    log.add(3, [])
    assert log.figures == {"skipped": 2, "skipped/s/unreadable image": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["skipped.2.jsonl"]
    assert SkippedLog(tmp_path, 3).figures == log.figures and SkippedLog(tmp_path, 2).figures == {}
