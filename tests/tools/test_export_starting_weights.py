"""tools/export_starting_weights.py: the command that made a run, with the options that its experiment has not."""

from dataclasses import replace
import json

import jax
import jax.numpy as jnp
import pytest
from safetensors import safe_open

from tools import export_starting_weights
from tools.export_starting_weights import NANO, options_of
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.cli.options import parse_overrides
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.config_json import to_json
from xgenmm_jax.training.runs.run_folder import COMMIT_FILE


@pytest.fixture(scope="module")
def pixels() -> TrainConfig:
    return load_experiment(NANO / "draw.py:pixels")


def test_options_are_those_in_which_a_run_differs(pixels):
    start = Initialize(run="runs/demo/sft_multi")
    optimizer = replace(pixels.optimizer, betas=(0.9, 0.99), decay_vectors=True)
    run = replace(pixels, steps=2000, initialize=start, optimizer=optimizer)
    options = options_of(to_json(run), to_json(pixels))
    assert options == [
        "--steps", "2000", "--optimizer.betas", "0.9", "0.99", "--optimizer.decay-vectors", "--initialize.run",
        "runs/demo/sft_multi", "--initialize.vision", "None",
    ]  # fmt: skip
    assert parse_overrides(TrainConfig, pixels, options, "xgenmm train") == run
    back = options_of(to_json(pixels), to_json(run))
    assert "--optimizer.no-decay-vectors" in back and "--initialize.vision" in back
    moved = replace(pixels, initialize=Initialize(vision="/another/checkout/nano_vision.safetensors"))
    assert options_of(to_json(moved), to_json(pixels)) == []


def test_what_no_option_says_is_refused(pixels):
    other = replace(pixels, data=replace(pixels.data, mixture=pixels.data.mixture * 2))
    with pytest.raises(ValueError, match="export: data.mixture of the run is not its experiment's, and no option says"):
        options_of(to_json(other), to_json(pixels))


def test_the_command_and_whose_parameters_they_are_stand_in_the_file(pixels, tmp_path, monkeypatch):
    """It wrote the experiment's file alone, whatever had been typed behind it."""
    run = tmp_path / "run"
    (run / "checkpoints" / "7").mkdir(parents=True)
    (run / COMMIT_FILE).write_text("abc\n")
    config = replace(pixels, steps=7, average_decay=0.9)
    monkeypatch.setattr(export_starting_weights, "WEIGHTS", tmp_path)
    monkeypatch.setattr(export_starting_weights, "load_config", lambda _: config)
    monkeypatch.setattr(export_starting_weights.checkpoints, "newest", lambda _: run / "checkpoints" / "7")
    zeros = lambda _, abstract: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract)  # noqa: E731
    monkeypatch.setattr(export_starting_weights, "restore_run", zeros)
    line = export_starting_weights.export(run, "pixels")
    assert line["command"] == "xgenmm train experiments/nano/draw.py:pixels --steps 7 --average-decay 0.9"
    assert line["parameters"] == "of the last step" and line["commit"] == "abc"
    with safe_open(tmp_path / "nano_pixels.safetensors", "numpy") as file:
        assert file.metadata() == {name: line[name] for name in line if name not in ("sha256", "bytes")}
    assert json.dumps(line)
