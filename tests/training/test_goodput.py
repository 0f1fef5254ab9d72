"""What a run's time went into, over its restarts."""

import dataclasses
import json

import pytest
import toy_run

from xgenmm_jax.training.goodput import KINDS, Goodput, in_words
from xgenmm_jax.training.hosts.watchdog import DOING
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def seconds(row: dict) -> dict[str, float]:
    return {kind: row[f"goodput/{kind}/seconds"] for kind in KINDS if row[f"goodput/{kind}/seconds"]}


def goodput_rows(run) -> list[dict]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "goodput" in row]


def test_each_second_is_of_one_kind():
    clock = Clock()
    goodput = Goodput(clock)
    for doing, lasts_s in (
        ("opening data", 10),
        ("reading rows", 3),
        ("starting the step", 40),
        ("waiting for the devices", 100),
        ("reading rows", 5),
        ("starting the step", 2),
        ("saving", 20),
    ):
        clock.now += 1 if doing == "opening data" else 0
        goodput.at(doing)
        clock.now += lasts_s
    row = goodput.row(7)
    assert seconds(row) == {"opening": 11, "reading": 8, "compiling": 40, "stepping": 102, "saving": 20}
    assert row["goodput/seconds"] == 181 == clock.now and row["goodput"] == 102 / 181
    assert sum(row[f"goodput/{kind}/share"] for kind in KINDS) == pytest.approx(1)
    others = "compiling 40 s (22%), saving 20 s (11%), opening 11 s (6%), reading 8 s (4%)"
    assert in_words(row) == f"goodput 56% of 181 s: stepping 102 s, {others}"


def test_rows_that_came_before_the_devices_were_done_cost_nothing():
    clock = Clock()
    goodput = Goodput(clock)
    goodput.at("reading rows")
    clock.now += 9
    goodput.hide_reading()
    assert seconds(goodput.row(1)) == {"stepping": 9}


def test_whatever_the_watchdog_is_told_has_a_kind():
    goodput = Goodput()
    for doing in DOING:
        goodput.at(doing)


@pytest.fixture
def events(monkeypatch):
    events = toy_run.Events()
    monkeypatch.setattr(toy_run, "EVENTS", events)
    return events


def test_sums_go_on_over_restarts_and_steps_that_are_repeated_are_lost(tmp_path, events, capfd):
    """A killed run has logged steps that it did not save; what they took is known from their rows alone."""
    config = dataclasses.replace(toy_run.config(), log_every=1)
    train(config, tmp_path / "unbroken")
    events.terminate_at = 7
    train(config, tmp_path / "killed")
    events.terminate_at = 0
    file = tmp_path / "killed" / "metrics.jsonl"
    (_, stopped) = goodput_rows(tmp_path / "killed")  # at the checkpoints
    assert stopped["step"] == 7 and stopped["goodput/lost/seconds"] == 0
    saved_s = read_metrics(tmp_path / "killed")[-1]["seconds"]
    with file.open("a") as lines:
        lines.write(json.dumps({"step": 8, "loss": 0.0, "seconds": saved_s + 50}) + "\n")
        lines.write(json.dumps({"step": 9, "loss": 0.0, "seconds": saved_s + 100}) + "\n")
    capfd.readouterr()
    train(config, tmp_path / "killed")
    rows = goodput_rows(tmp_path / "killed")
    assert [row["step"] for row in rows] == [5, 7, 7, 10, 12]
    assert [row["goodput/lost/seconds"] for row in rows[:2]] == [0, 0]
    lost = {row["goodput/lost/seconds"] for row in rows[2:]}
    assert len(lost) == 1 and lost.pop() == pytest.approx(100, abs=5)
    for before, after in zip(rows, rows[1:], strict=False):
        assert all(after[f"goodput/{kind}/seconds"] >= before[f"goodput/{kind}/seconds"] for kind in KINDS)
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("toy goodput ") and "lost 100 s" in said
    # They are timing: no row of a step knows of them.
    figures = [[(row["step"], row["loss"]) for row in read_metrics(tmp_path / name)] for name in ("killed", "unbroken")]
    assert figures[0] == figures[1]


def test_a_run_killed_before_its_first_checkpoint_lost_all_that_it_logged(tmp_path):
    rows = ({"step": 1, "loss": 1, "seconds": 4}, {"step": 2, "loss": 1, "seconds": 6})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    goodput = Goodput(Clock())
    assert goodput.go_on(tmp_path, 0, 0.0)
    assert seconds(goodput.row(0)) == {"lost": 6}
