"""`xgenmm train` as typed."""

from pathlib import Path
import subprocess
import sys

import pytest

from xgenmm_jax.cli import main as cli

EXPERIMENT = """
from common import steps
import dataclasses
import toy_run

def config():
    return dataclasses.replace(toy_run.config(), name="mine", steps=steps)
"""
TRAINING_TESTS = Path(__file__).parent.parent / "training"


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TRAINING_TESTS))
    folder = tmp_path / "experiments" / "nano"
    folder.mkdir(parents=True)
    (folder / "common.py").write_text("steps = 3\n")
    (folder / "stage.py").write_text(EXPERIMENT)
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.chdir(tmp_path)
    yield folder / "stage.py"
    sys.modules.pop("common", None)


def test_a_file_anywhere_trains_with_overrides(experiment, tmp_path, monkeypatch):
    seen = {}

    def record(config, folder):
        seen.update(config=config, folder=folder)
        return type("Result", (), {"signal": None})()

    monkeypatch.setattr("xgenmm_jax.training.loop.train", record)
    options = ["--optimizer.peak-lr", "3e-4", "--data.rows=32", "--freeze", "decoder", "--objective.reference"]
    assert cli.main(["train", str(experiment), *options, "--workdir", "w"]) == 0
    config = seen["config"]
    assert (config.optimizer.peak_lr, config.data.rows, config.freeze) == (3e-4, 32, ("decoder",))
    assert config.objective.reference and config.steps == 3 and seen["folder"] == Path("w")
    assert cli.main(["train", "experiments/nano/stage.py"]) == 0
    assert seen["folder"] == Path("runs/mine")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--optimizer.peek-lr", "3"], "no option --optimizer.peek-lr; did you mean --optimizer.peak-lr"),
        (["--optimizer.peak-lr", "fast"], "xgenmm: --optimizer.peak-lr: got 'fast', wanted a number."),
        (["--steps", "abc"], "xgenmm: --steps: got 'abc', wanted a whole number."),
        (["--steps"], "xgenmm: --steps: got no value; give one after it."),
        (["--optimizer.betas", "0.9"], "xgenmm: --optimizer.betas: got too few values; give 2 after it."),
        (["--optimizer.betas", "a", "b"], "xgenmm: --optimizer.betas: got 'a', 'b', wanted (float, float)."),
        (["--optimizer.schedule", "cosin"], "--optimizer.schedule: got 'cosin', wanted one of 'cosine', 'linear'"),
        (["--lr", "3"], "no option --lr; did you mean --optimizer.peak-lr; --help-all lists all"),
        (["--learning-rate=3"], "no option --learning-rate; did you mean --optimizer.peak-lr; --help-all lists all"),
        (["--work-dir", "w"], "no option --work-dir; did you mean --workdir"),
        (["--xyzzy", "3"], "no option --xyzzy; --help-all lists all"),
        (["--optimizer.peak-lr", "-1"], "xgenmm: optimizer.peak_lr: got -1.0"),
        (["stray"], "'stray' belongs to no option"),
    ],
)
def test_mistyped_override_is_one_sentence_and_code_two(experiment, capsys, words, sentence):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", str(experiment), *words])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and sentence in error and error.count("\n") == 1 and len(error) < 300


def test_errors_are_one_line_without_traceback(experiment, capsys):
    assert cli.main(["train", "experiments/nano/stag.py"]) == 1
    error = capsys.readouterr().err
    assert error == "xgenmm train: experiment: no file 'experiments/nano/stag.py'; did you mean stage.py.\n"
    (experiment.parent / "empty.py").write_text("")
    assert cli.main(["train", "experiments/nano/empty.py"]) == 1
    assert "no function config()" in capsys.readouterr().err
    assert cli.main(["train", str(experiment), "--mesh.fsdp", "3", "--workdir", "never"]) == 1
    assert "the product must equal" in capsys.readouterr().err and not Path("never").exists()
    assert cli.main(["trian"]) == 2
    assert "did you mean train" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("import os\nimport nowhere\n", "'stage.py' line 2: ModuleNotFoundError: No module named 'nowhere'; correct"),
        ("def config(:\n", "'stage.py' line 1: invalid syntax; correct it there"),
        ("def config():\n    return 1 / 0\n", "'stage.py' line 2: ZeroDivisionError: division by zero; correct it"),
        ("import near\n", "'near.py' line 2: KeyError: 'a'; correct it there"),
        ("def config():\n    raise ValueError('data: none; get some.')\n", "'stage.py' line 2: data: none; get some."),
        ("def config():\n    return 3\n", "config() of 'stage.py' returns a int, wanted a TrainConfig"),
    ],
)
def test_what_an_experiment_raises_is_one_line_with_its_place(experiment, monkeypatch, capsys, text, sentence):
    """They were tracebacks through importlib."""
    monkeypatch.chdir(experiment.parent)
    experiment.write_text(text)
    Path("near.py").write_text("\n{}['a']\n")
    assert cli.main(["train", "stage.py"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"xgenmm train: experiment: {sentence}") and error.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", [["train", "experiments/nano/stage.py"], ["demo"]])
def test_a_workdir_that_is_a_file_is_refused(experiment, capsys, command):
    """Said was: [Errno 17] File exists."""
    Path("image.png").write_text("")
    for workdir in ("image.png", "image.png/mine"):
        assert cli.main([*command, "--workdir", workdir]) == 1
        error = capsys.readouterr().err
        assert f"--workdir: got '{workdir}', but 'image.png' is a file; give a new folder" in error
        assert error.count("\n") == 1


def test_help_loads_no_jax():
    code = "import sys; from xgenmm_jax.cli.main import main; main(['--help']); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and "xgenmm evaluate" in done.stdout, done.stderr
