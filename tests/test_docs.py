"""Figures of README and docs/usage.md that follow from other files are those of these files."""

import contextlib
from dataclasses import replace
import itertools
import json
from pathlib import Path
import re
import shutil
import sys
from unittest import mock

import numpy as np
import PIL.Image
import pytest

from experiments.nano import sft_multi
from experiments.nano.starting_weights import (
    language_model,
    language_model_finding,
    language_model_naming,
    vision_tower,
    vision_tower_reading,
    vision_tower_small_text,
)
from tools import plan_table, pod_speeds
from xgenmm_jax.cli import main as cli
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import LoaderConfig
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.training.config import TrainConfig, save_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", plan_table.STAGES)
def test_the_readme_has_the_hours_of_the_pods(stage: str):
    speeds = pod_speeds.read()
    line = next(line for line in README.splitlines() if line.startswith("|") and f"(`{stage}`)" in line)
    for topology, text in zip(("v5e:16x16", "v6e:16x16", "v5p:4x4x8"), line.split("|")[3:6], strict=True):
        planned = speeds["4b", stage, topology, 1]
        hours, chip_hours = re.match(r" fits; ([\d.]+) h, ([\d,]+)", text).groups()
        assert hours == plan_table.hours_of(float(planned["hours"]))
        assert chip_hours == f"{float(planned['chip_hours']):,.0f}"


def test_the_images_that_the_starting_tower_saw_are_counted_from_its_recipe():
    configs = [part.config() for part in (vision_tower, vision_tower_reading, vision_tower_small_text)]
    seen = sum(config.steps * config.data.batch_rows for config in configs)
    assert f"{seen:,} drawn images with captions" in USAGE
    assert f"{seen / 1e6:.2f} million captioned images" in README


def test_the_steps_of_the_starting_language_model_are_those_of_its_recipe():
    steps = [part.config().steps for part in (language_model, language_model_finding, language_model_naming)]
    assert " + ".join(f"{n:,}" for n in steps) in USAGE
    assert f"{sum(steps):,} steps" in README


def test_the_readme_stays_short_and_says_first_what_was_not_done():
    """A stranger read 27 rows about a drawn world before the sentence that no 4B model was trained."""
    lines = README.splitlines()
    assert len(lines) <= 110
    first_screen = " ".join(lines[:25])
    not_done = "none of the paper's data sets was seen whole"
    for claim in ("No 4B model was trained", "no TPU has run this code", not_done):
        assert claim in first_screen


def own_data(page: str) -> str:
    """The experiment of a page's section "Your own data"."""
    (code,) = re.findall(r"## Your own data.*?```python\n(.*?)```", page, re.DOTALL)
    return code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A reader's folder with pictures, and a run that their experiment starts from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "data" / "images").mkdir(parents=True)
    for color in ("red", "blue", "green"):
        PIL.Image.new("RGB", (60, 40), color).save(tmp_path / "data" / "images" / f"{color}.jpg")
    return tmp_path


def trained_on(monkeypatch, *words: str) -> tuple[TrainConfig, list[str], set[str]]:
    """What `xgenmm train` would train: its config, the samples of two batches, what was left out of them."""
    seen = []
    monkeypatch.setattr(
        "xgenmm_jax.training.loop.train", lambda config, folder: seen.append(config) or mock.Mock(signal=None)
    )
    assert cli.main(["train", *words]) == 0
    (config,) = seen
    fewer = replace(config.data, window=64, loader=LoaderConfig(ahead=1))
    with contextlib.closing(loader.batches(fewer, config.seed)) as batches:
        taken = list(itertools.islice(batches, 2))
    ids = [id_ for one in taken for row in one.sample_ids for id_ in row.split(" + ")]
    return config, ids, {skip.detail for one in taken for skip in one.skipped}


def test_the_lines_of_the_readme_take_pictures_and_questions_into_fine_tuning(folder: Path, monkeypatch):
    """A reader copies them: names that have moved would fail in their hands."""
    start = sft_multi.config()
    (folder / "runs/demo/sft_multi").mkdir(parents=True)
    save_config(start, folder / "runs/demo/sft_multi/config.json")
    shutil.copy(start.data.tokenizer, folder / "runs/demo/sft_multi/tokenizer.model")
    (entry,) = re.findall(r"a list of `({.*?]})`", README, re.DOTALL)
    entries = [json.loads(entry) | {"id": color, "image": f"{color}.jpg"} for color in ("red", "blue", "green")]
    (folder / "data" / "mine.json").write_text(json.dumps(entries))
    (command,) = re.findall(r"    xgenmm train (experiments/finetune.py:lora .*?)\n    xgenmm", README, re.DOTALL)
    words = command.replace("\\\n", " ").replace("experiments/", f"{ROOT}/experiments/").split()
    config, ids, skipped = trained_on(monkeypatch, *words)
    assert (config.name, config.initialize.run) == ("sft_multi-mine", "runs/demo/sft_multi") and not skipped
    assert (config.model, config.data.anyres, config.lora) == (start.model, start.data.anyres, LoRA())
    assert set(ids) == {f"mine.json[{number}]" for number in range(3)} and len(ids) > 10
    assert (folder / "data" / ".index" / "mine" / "manifest.json").is_file()
    record = config.data.mixture[0][0].open().record(0, np.random.default_rng(0))
    assert [turn.text for turn in record.turns] == ["<image>\nWhat is it?", "A cat."]
    assert record.images[0].load().size == (60, 40)


def test_the_source_of_ones_own_in_usage_is_trained_on(folder: Path, monkeypatch):
    table = "\n".join(f"{color}.jpg,a {color} thing" for color in ("red", "blue", "green"))
    (folder / "data" / "images" / "labels.csv").write_text(table + "\n")
    (folder / "mine.py").write_text(own_data(USAGE).replace("data/labels.csv", "data/images/labels.csv"))
    config, ids, skipped = trained_on(monkeypatch, "mine.py", "--initialize.run", "runs/demo/sft_multi")
    assert set(ids) == {"red.jpg", "blue.jpg", "green.jpg"} and not skipped
    assert config.data.mixture[0][0].files() == [Path("data/images/labels.csv")]
