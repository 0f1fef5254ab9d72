"""tools/tuning_table.py: what is trained and asked, what is not done again, and the table of it."""

import json
from pathlib import Path

import pytest

from tools import tuning_table
from xgenmm_jax.nano import tuning_rows

SCORES = {"before": 0.0, "whole_0": 0.5, "lora_0": 0.25, "whole_1": 0.75, "lora_1": 0.25}


@pytest.fixture
def called(monkeypatch) -> list[tuple]:
    """The commands, which leave the files that `xgenmm` leaves."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        options = dict(zip(arguments[:-1], arguments[1:], strict=True))
        if arguments[0] == "train":
            options["--workdir"].mkdir()
            row = {"step": 2, "loss": 1.0, "seconds": 10.0 + int(options["--seed"])}
            (options["--workdir"] / "metrics.jsonl").write_text(json.dumps(row))
        else:
            names = [*tuning_table.SHOWN, "questions/colour"]
            score = SCORES[options["--json"].stem]
            options["--json"].write_text(json.dumps({"metrics": dict.fromkeys(names, score)}))

    monkeypatch.setattr(tuning_table, "call", call)
    monkeypatch.setattr(tuning_table, "trained_parameters", lambda run: 1000 + len(run.name))
    return calls


def test_each_seed_is_trained_both_ways_and_no_finished_one_again(called, tmp_path, capsys):
    arguments = [str(tmp_path), "--run", "some/run", "--rows", "4", "--steps", "2", "--seeds"]
    tuning_table.main([*arguments, "0"])
    assert [call[:2] for call in called if call[0] == "train"] == [
        ("train", "experiments/finetune.py"), ("train", "experiments/finetune.py:lora"),
    ]  # fmt: skip
    assert len(called) == 5 and len(json.loads((tmp_path / tuning_rows.ROWS_FILE).read_text())) == 4
    called.clear()
    tuning_table.main([*arguments, "0", "1"])
    assert len(called) == 4 and all("1" in str(call) for call in called)
    assert "runs of the seeds 0, 1" in capsys.readouterr().out
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "| the new question | 0.0 | 62.5 [50.0, 75.0] | 25.0 [25.0, 25.0] |" in lines
    assert "| old: colour | 0.0 | 62.5 [50.0, 75.0] | 25.0 [25.0, 25.0] |" in lines
    assert "| seconds of training |  | 10 [10, 11] | 10 [10, 11] |" in lines
    assert "| trained parameters |  | 1,007 | 1,006 |" in lines
    assert len(json.loads((tmp_path / "table.json").read_text())["runs"]) == 4


def test_a_run_that_a_kill_left_goes_on(called, tmp_path, monkeypatch):
    """`xgenmm train` is asked again for the same folder, where it goes on from its checkpoint."""
    settings = tuning_table.Settings("some/run", rows=3)
    tuning_table.train_and_ask(tmp_path, "whole", 0, settings)
    (tmp_path / "whole_0.json").unlink()
    again = []
    monkeypatch.setattr(tuning_table, "call", lambda *arguments: again.append(arguments))
    with pytest.raises(FileNotFoundError):  # of the scores, which this call does not leave
        tuning_table.train_and_ask(tmp_path, "whole", 0, settings)
    assert again[0] == called[0] and again[1][:2] == ("evaluate", tmp_path / "whole_0")


def test_a_folder_of_other_settings_is_refused(tmp_path):
    tuning_table.begin(tmp_path, tuning_table.Settings("some/run", rows=3))
    with pytest.raises(ValueError, match="is of steps 60, asked for 50; give another folder"):
        tuning_table.begin(tmp_path, tuning_table.Settings("some/run", rows=3, steps=50))


def test_commands_run_from_the_checkout():
    assert (Path(tuning_table.ROOT) / tuning_table.EXPERIMENTS["whole"]).is_file()
