"""The driver of the demo, with stand-ins for training and evaluation."""

import json
import signal

import pytest

from xgenmm_jax.cli import demo as cli_demo
from xgenmm_jax.nano import demo
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.runs.run_lock import RunLock

FACTS = demo.ReportFacts(1_900_000, {"cpu": "Some CPU", "cores": 2}, "abc123")
ELSEWHERE = demo.ReportFacts(1_900_000, {"cpu": "Another CPU", "cores": 8}, "def456")
STAGES = [demo.Stage("stage1", "config 1", 4), demo.Stage("stage2", "config 2", 4)]


class Work:
    """Trains a step at a time into metrics.jsonl. kill_at: (stage, step) not survived; signal_at: asked to stop."""

    def __init__(self, kill_at=None, signal_at=None, kill_evaluation=None, commit="abc123"):
        self._commit = commit
        self.calls, self.seen = [], {}
        self._kill_at, self._signal_at, self._kill_evaluation = kill_at, signal_at, kill_evaluation

    def train(self, config, folder):
        self.calls.append(f"train {folder.name}")
        self.seen[folder.name] = (folder.parent / "report.html").read_text()
        folder.mkdir(exist_ok=True)
        file = folder / "metrics.jsonl"
        if not file.exists():
            (folder / "commit").write_text(f"{self._commit}\n")
        done = len(file.read_text().splitlines()) if file.exists() else 0
        for step in range(done + 1, 5):
            with file.open("a") as out:
                row = {"step": step, "loss": 3.0 / step, "tokens": 10 * step, "samples": step, "seconds": 1.0 * step}
                out.write(json.dumps(row) + "\n")
            if (folder.name, step) == self._kill_at:
                raise KeyboardInterrupt
            if (folder.name, step) == self._signal_at:
                return int(signal.SIGTERM)
        return None

    def evaluate(self, folder):
        self.calls.append(f"evaluate {folder.name}")
        if folder.name == self._kill_evaluation:
            raise KeyboardInterrupt
        return {"metrics": {"questions/mean": 0.5}, "examples": [], "photographs": [], "looks": []}


def run(work, folder, facts=FACTS):
    return demo.run_demo(STAGES, folder, facts, work.train, work.evaluate, refresh_s=0.01)


def figures(folder):
    """report.json without what differs from run to run."""
    report = json.loads((folder / "report.json").read_text())
    for stage in report["stages"].values():
        del stage["seconds"], stage["seconds_of"]
    return {"stages": report["stages"], "machine": report["machine"], "commit": report["commit"]}


def test_stages_run_in_order_and_each_is_evaluated(tmp_path, capsys):
    work = Work()
    assert run(work, tmp_path) == 0
    assert work.calls == ["train stage1", "evaluate stage1", "train stage2", "evaluate stage2"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["stages"]) == ["stage1", "stage2"]
    assert report["stages"]["stage2"]["tokens"] == 40
    assert str(tmp_path / "report.html") in capsys.readouterr().out


def test_the_page_is_there_before_the_first_stage_trains(tmp_path):
    work = Work()
    run(work, tmp_path)
    assert "Training stage1: compiling" in work.seen["stage1"]
    assert 'http-equiv="refresh"' in work.seen["stage2"]
    assert 'http-equiv="refresh"' not in (tmp_path / "report.html").read_text()


def test_what_is_done_is_never_done_again(tmp_path):
    """Nor is it called the work of the machine and the code that look at it."""
    run(Work(), tmp_path)
    before = figures(tmp_path)
    work = Work()
    assert run(work, tmp_path, ELSEWHERE) == 0
    assert work.calls == []
    assert figures(tmp_path) == before


def test_the_report_names_the_machine_that_last_worked_and_the_commit_of_each_stage(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Work(kill_evaluation="stage1"), tmp_path)
    assert run(Work(commit="def456"), tmp_path, ELSEWHERE) == 0
    report = figures(tmp_path)
    assert report["commit"] == "abc123 (stage1), def456 (stage2)"
    assert report["machine"] == ELSEWHERE.machine


@pytest.mark.parametrize(
    "broken, calls",
    [
        (Work(kill_at=("stage2", 2)), ["train stage2", "evaluate stage2"]),
        (Work(kill_evaluation="stage1"), ["train stage1", "evaluate stage1", "train stage2", "evaluate stage2"]),
    ],
    ids=["in training", "in evaluation"],
)
def test_killed_and_run_again_it_ends_with_the_same_figures(tmp_path, broken, calls):
    whole = tmp_path / "whole"
    assert run(Work(), whole) == 0
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        run(broken, killed)
    assert "The same command continues" in (killed / "report.html").read_text()
    spent = json.loads((killed / "report.json").read_text())["seconds"]
    work = Work()
    assert run(work, killed) == 0
    assert work.calls == calls
    assert figures(killed) == figures(whole)
    assert json.loads((killed / "report.json").read_text())["seconds"] >= spent


def test_a_signal_in_training_ends_the_demo_with_its_code(tmp_path):
    work = Work(signal_at=("stage1", 2))
    assert run(work, tmp_path) == 128 + signal.SIGTERM
    assert work.calls == ["train stage1"]
    assert "Stopped in stage1 at step 2 of 4" in (tmp_path / "report.html").read_text()


def test_seconds_add_up_over_restarts(tmp_path):
    """Those of a stage whose folder was removed do not: it is trained again."""
    spent = {"training": 100.0, "evaluation": 20.0, "compile": 7.0}
    stages = {"stage1": spent, "stage2": spent}
    (tmp_path / "stage1").mkdir()
    (tmp_path / "seconds.json").write_text(json.dumps({"stages": stages, "peak_memory_mib": 1e6}))
    run(Work(), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert 120.0 <= report["stages"]["stage1"]["seconds"] < 130.0
    assert report["stages"]["stage1"]["seconds_of"]["compile"] == 7.0
    assert report["stages"]["stage2"]["seconds"] < 10.0
    assert report["peak_memory_mib"] == 1e6


@pytest.mark.parametrize("text", ["{}", "", '{"metrics": {"questions', "[1]"])
@pytest.mark.parametrize("name, remedy", [("seconds.json", "seconds are counted"), ("gallery.json", "evaluated again")])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, remedy, text):
    """Nothing is written then."""
    file = tmp_path / name if name == "seconds.json" else tmp_path / "stage2" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=f"^'{file}' (is not JSON|holds .*, wanted an object).*; delete it.*{remedy}"):
        run(Work(), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before and file.read_text() == text


def test_compilations_are_counted_where_they_happen(tmp_path):
    """Those of the driver itself, before any stage, belong to none."""
    work = Work()
    listeners = []

    def train(config, folder):
        listeners[0](2.5)
        return work.train(config, folder)

    demo.run_demo(STAGES, tmp_path, FACTS, train, work.evaluate, listeners.append, refresh_s=9.0)
    listeners[0](50.0)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["stages"]["stage1"]["seconds_of"]["compile"] == 2.5


def test_each_stage_starts_from_the_one_before(tmp_path):
    for name in cli_demo.STAGES:
        (tmp_path / f"{name}.py").write_text(
            "from xgenmm_jax.training.config import Initialize, TrainConfig\n"
            "from xgenmm_jax.training.objectives.next_token import NextToken\n"
            "def config():\n"
            "    start = Initialize(vision='tower.safetensors')\n"
            f"    return TrainConfig('{name}', None, None, NextToken(), 5, initialize=start)\n"
        )
    stages = cli_demo.load_stages(tmp_path, tmp_path / "work")
    assert [stage.name for stage in stages] == list(cli_demo.STAGES)
    assert all(isinstance(stage.config, TrainConfig) and stage.steps == 5 for stage in stages)
    starts = [stage.config.initialize.run for stage in stages]
    assert starts == [None, *(str(tmp_path / "work" / name) for name in cli_demo.STAGES[:-1])]


def test_a_missing_stage_is_named(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        cli_demo.load_stages(tmp_path / "nowhere", tmp_path)
    with pytest.raises(ValueError, match="stage1.py"):
        cli_demo.load_stages(tmp_path, tmp_path)


def test_two_demos_in_one_folder_are_refused(tmp_path):
    with RunLock(tmp_path), pytest.raises(ValueError, match="another process"):
        cli_demo.main(["--workdir", str(tmp_path)])
