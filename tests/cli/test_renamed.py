"""What was renamed is told with its name of today."""

from collections.abc import Iterator
import json
from pathlib import Path
import re
from typing import Any

import pytest

from xgenmm_jax.cli import main as cli
from xgenmm_jax.cli import renamed
from xgenmm_jax.cli.experiment_files import import_experiment, run_names
from xgenmm_jax.cli.options import parse_overrides
from xgenmm_jax.training.config import TrainConfig

ROOT = Path(__file__).parents[2]
OLD_RUN = ROOT / "tests/goldens/run_config_d833a01.json"
"""config.json of experiments/nano/stage1.py as commit d833a01 wrote it."""


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(cli, "keep_memory", lambda: True)


def error_of(words: list[str], capsys) -> tuple[int, str]:
    try:
        code = cli.main(words)
    except SystemExit as exit_:
        code = exit_.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--loss.chunk", "3"], "no option --loss.chunk; it is --objective.chunk now"),
        (["--model.sampling=STRIPS"], "no option --model.sampling; it is --model.token-sampling now"),
        (["--model.decoder.vocab_rows", "9"], "--model.decoder.vocab_rows; it is --model.decoder.vocab-size now"),
        (["--loss.chunks", "3"], "no option --loss.chunks; did you mean --objective.chunk"),
        (["--model.train-vision"], "no option --model.train-vision any more; the tower trains unless --freeze"),
        (["--data.picture-folder", "x"], "no option --data.picture-folder any more; drawn images are made anew"),
    ],
)
def test_a_renamed_option_is_told_by_its_name_of_today(capsys, words, sentence):
    code, error = error_of(["train", "experiments/stage1.py", *words], capsys)
    assert code == 2 and sentence in error and error.count("\n") == 1


def test_a_renamed_option_of_generate_is_told_too(capsys):
    code, error = error_of(["generate", "run", "--picture", "x.png", "What is this?"], capsys)
    assert (code, error) == (2, "xgenmm: no option --picture; it is --image now.\n")


def test_a_folder_of_stages_that_became_a_file_is_told(tmp_path, capsys):
    code, error = error_of(["demo", "experiments/micro", "--workdir", str(tmp_path / "demo")], capsys)
    sentence = "xgenmm demo: no folder 'experiments/micro'; 'experiments/micro.py' holds its stages now.\n"
    assert (code, error) == (1, sentence) and not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    "file, sentence",
    [
        ("experiments/micro/stage1.py", "it is experiments/micro.py:stage1 now."),
        ("experiments/micro/vision_tower.py", "it is experiments/micro.py:vision_tower now."),
        ("experiments/nano/vision_tower.py", "it is experiments/nano/starting_weights/vision_tower.py now."),
        ("experiments/ablations/connector.py:nano_mlp", "it is experiments/ablations/connector.py:mlp --at nano now."),
        ("experiments/ablations/connector.py:queries_64", "it is experiments/ablations/connector.py:queries_half now."),
        ("experiments/ablations/data_scale.py:nano", "it is experiments/ablations/data_scale.py:config --at nano now."),
        ("experiments/ablations/connector.py:nano_x", "wanted one of"),
        ("experiments/stage9.py", "did you mean stage"),
    ],
)
def test_a_moved_experiment_is_told_by_its_place_of_today(capsys, file, sentence):
    code, error = error_of(["train", file], capsys)
    assert code == 1 and sentence in error and error.count("\n") == 1


def old_options(value: Any, name: str) -> Iterator[str]:
    """The options of a config of d833a01, as its JSON has them."""
    if isinstance(value, dict) and "class" in value:
        for field, inner in value.items():
            if field != "class":
                yield from old_options(inner, f"{name}.{field}")
    elif name not in (".data.mixture", ".version"):
        yield f"--{name[1:].replace('_', '-')}"


def test_every_option_of_a_run_before_the_rename_is_one_of_today_or_told(monkeypatch, capsys):
    """A field that is renamed without a line in the table would leave its users with a guess."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as exit_:
        parse_overrides(TrainConfig, _stage1(), ["--help"], "xgenmm")
    assert exit_.value.code == 0
    today = set(re.findall(r"--[a-z0-9.-]+", capsys.readouterr().out))
    old = list(old_options(json.loads(OLD_RUN.read_text()), ""))
    assert len(old) > 80
    untold = [name for name in old if (renamed.option(name) or name) not in today and renamed.gone(name) is None]
    assert untold == []


def _stage1() -> TrainConfig:
    return import_experiment(ROOT / "experiments/nano/stage1.py").config()


def test_every_run_of_the_table_is_one_of_an_ablation():
    files = sorted((ROOT / "experiments/ablations").glob("*.py"))
    runs = {name for file in files for name in run_names(import_experiment(file))}
    assert {new.split()[0] for new in renamed.RUNS.values()} <= runs and not set(renamed.RUNS) & runs
