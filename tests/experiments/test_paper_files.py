"""Each of the paper's experiments starts on the files that it names and takes two steps at nano's width."""

import dataclasses
import functools
import inspect
import json
from pathlib import Path

import jax
import paper_files
import pytest

from experiments import dpo, sft_multi, sft_single, stage1, stage2
from xgenmm_jax.cli.experiment_files import import_experiment, run_names
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer
from xgenmm_jax.models import sizes
from xgenmm_jax.training.config import CheckpointConfig, Initialize, TrainConfig
from xgenmm_jax.training.loop import train

STAGES = {"stage1": stage1, "stage2": stage2, "sft_single": sft_single, "sft_multi": sft_multi, "dpo": dpo}
QUICK = ("stage1",)
"""What every run of the tests starts; the others are slow."""

FOLDER = Path(stage1.__file__).parent
ABLATIONS = [
    (path.stem, name)
    for path in sorted((FOLDER / "ablations").glob("*.py"))
    # What draws, and BLIP-2's first stage, have other parts to make narrow: tests/tools/test_drawing_study.py and
    # test_connector_study.py.
    if not path.stem.startswith(("blip3o_", "blip2"))
    for name in run_names(import_experiment(path))
    # Of a question's two towers, nano's own pair reads no file.
    if name not in ("tower_sigmoid", "tower_softmax", "sigmoid", "softmax")
]
OTHERS = {
    "stage2 new at 10": stage2.new_at_10,
    "sft_single example": sft_single.example,
    "dpo noised": dpo.noised_as_well,
    "dpo safety": dpo.safety,
}


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("words") / "small.model"
    train_tokenizer([paper_files.CAPTION, "The museum opened in 1911. What do both show?"] * 9, path, pieces=400)
    return str(path)


def narrow(config: TrainConfig, words: str) -> TrainConfig:
    """The run at nano's widths, a layer a part, in shorter rows; mixture, grids and prompts are its own."""
    nano = sizes.nano(512, Tokenizer.load(words).num_text_tokens)
    parts = {
        name: dataclasses.replace(getattr(nano, name), layers=1, remat="none")
        for name in ("vision", "connector", "decoder")
    }
    model = dataclasses.replace(config.model, **parts)
    anyres = dataclasses.replace(config.data.anyres, view_px=64, view_cells=8)
    row = dataclasses.replace(config.data.row, length=config.data.row.length // 6, vision_tokens=16)
    data = dataclasses.replace(config.data, tokenizer=words, row=row, anyres=anyres, batch_rows=2, window=64)
    return dataclasses.replace(config, model=model, data=data)


def two_steps(config: TrainConfig) -> TrainConfig:
    """The run from random weights, ended after two steps."""
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=1)
    # The files have too few records to set one in 1000 aside, so they are drawn whole.
    held_out = dataclasses.replace(config.held_out, samples=40, mixture=config.data.mixture)
    checkpoint = CheckpointConfig()
    return dataclasses.replace(
        config,
        steps=2,
        optimizer=optimizer,
        initialize=Initialize(),
        checkpoint=checkpoint,
        held_out=held_out,
        log_every=1,
    )


def steps_of(config: TrainConfig, folder) -> list[dict]:
    paper_files.write_sources(source for source, _ in config.data.mixture)
    assert train(config, folder, devices=jax.devices()[:1]).step == 2
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


@pytest.mark.parametrize(
    "stage", [stage if stage in QUICK else pytest.param(stage, marks=pytest.mark.slow) for stage in STAGES]
)
def test_a_stage_starts_on_published_files_and_takes_two_steps(stage, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = two_steps(narrow(STAGES[stage].config(), words))
    rows = steps_of(config, tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    # Pre-training has a held-out loss, of every source that is drawn often enough.
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    held_out = [set(row) for row in map(json.loads, lines) if "held_out/loss" in row]
    names = {f"held_out/{source.name}/loss" for source, weight in config.data.mixture if weight >= 5}
    assert [names <= row for row in held_out] == ([True] if stage in ("stage1", "stage2") else [])
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", OTHERS)
def test_further_runs_of_a_stage_take_two_steps(run, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(steps_of(two_steps(narrow(OTHERS[run](), words)), tmp_path / "run")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("question", "name"), ABLATIONS)
def test_an_ablations_arm_takes_two_steps(question, name, words, tmp_path, monkeypatch):
    """What an arm changes is changed at nano's widths too: it takes the stage that it is given."""
    monkeypatch.chdir(tmp_path)
    arm = getattr(import_experiment(FOLDER / "ablations" / f"{question}.py"), name)
    stages = {
        parameter.name: functools.partial(narrow, parameter.default(), words)
        for parameter in inspect.signature(arm).parameters.values()
    }
    config = arm(**stages) if stages else narrow(arm(), words)
    assert len(steps_of(two_steps(config), tmp_path / "run")) == 2
