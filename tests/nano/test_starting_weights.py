"""The shipped starting weights, and the tokenizer whose ids they know, are the files that weights.json names."""

from dataclasses import replace
import hashlib
import json
from pathlib import Path
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from experiments.nano import draw as drawing
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.cli.options import parse_overrides
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.models import blip3o, drawing_features
from xgenmm_jax.nano.drawing.prompts import benchmark
from xgenmm_jax.nano.drawing.scores import scores
from xgenmm_jax.nano.starting_weights import PIXELS, VISION, WEIGHTS
from xgenmm_jax.nano.world import draw
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.runs.initialize import initialize_params

ROOT = Path(__file__).parents[2]
INDEX = json.loads((WEIGHTS / "weights.json").read_text())


@pytest.mark.parametrize("name", INDEX)
def test_checksum_and_origin_are_those_of_the_index(name):
    path, line = WEIGHTS / name, INDEX[name]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == line["sha256"]
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            in_file = {"command": line.get("command_in_file", line["command"])}
            facts = {key: line[key] for key in ("seed", "steps", "parameters", "commit") if key in line}
            assert file.metadata() == in_file | facts


@pytest.mark.parametrize("name", INDEX)
def test_the_command_is_one_that_can_be_given(name):
    """Two named experiments that had moved, one left away the options without which it was not made."""
    program, word, *rest = shlex.split(INDEX[name]["command"])
    if program == "python":
        assert (ROOT / word).is_file()
        return
    path, options = ROOT / rest[0], rest[1:]
    assert (program, word) == ("xgenmm", "train") and Path(str(path).partition(":")[0]).is_file()
    config = parse_overrides(TrainConfig, load_experiment(path), options, "xgenmm train")
    assert str(config.steps) == INDEX[name]["steps"] and str(config.seed) == INDEX[name]["seed"]


def test_all_files_are_listed_and_small():
    files = sorted(path.name for pattern in ("*.safetensors", "*.model") for path in WEIGHTS.glob(pattern))
    assert files == sorted(INDEX)
    assert sum(line["bytes"] for line in INDEX.values()) <= 10_000_000


def shipped(model: blip3o.Blip3oConfig) -> dict:
    """Of the model's parameters tower, pixel decoder and the features' scale, as they ship."""

    def init(key):
        return blip3o.initialize(model, key)

    boxed = jax.eval_shape(init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), unboxed(boxed))
    parts = {part: abstract[part] for part in ("vision", "target", "pixels") if part in abstract}
    return initialize_params(Initialize(vision=VISION, pixels=PIXELS), init, 0, parts)


@pytest.fixture(scope="module")
def pixels():
    model = drawing.model()
    return model, shipped(model)


def test_the_pixel_decoder_fits_the_model_and_brings_the_scale_of_its_features(pixels):
    _, params = pixels
    assert params["pixels"]["positions"].dtype == np.float32
    assert (np.asarray(params["target"]["std"]) > 0.1).all()


def test_a_pixel_decoder_of_another_grid_is_told():
    model = drawing.model()
    others = replace(model.drawing.pixels, grid=2)
    coarse = replace(model, drawing=replace(model.drawing, target=blip3o.TowerTarget(grid=2), pixels=others))
    with pytest.raises(ValueError, match="initialize.pixels: .* does not fit the model: pixels/cells/bias has 2 x 2"):
        shipped(coarse)
    none = replace(model, drawing=replace(model.drawing, pixels=None))
    with pytest.raises(ValueError, match="initialize.pixels: the model has no such part, only target, vision"):
        shipped(none)


@pytest.mark.slow
def test_the_pixel_decoder_draws_true_features(pixels):
    model, params = pixels
    pairs = benchmark("held_out", 20)
    true = jnp.asarray(np.stack([np.asarray(draw.draw(scene)) for _, scene in pairs]))
    features = drawing_features.normalised(model, params, drawing_features.raw_features(model, params, true))
    read = scores([prompt for prompt, _ in pairs], np.asarray(drawing_features.to_pixels(model, params, features)))
    assert read.colors.percent > 90 and read.positions.percent > 95 and read.nouns.percent > 50


@pytest.mark.slow
def test_the_shipped_scale_is_what_a_run_would_measure(pixels):
    model, params = pixels
    config = drawing.config()
    unknown = {**params, "target": jax.tree.map(jnp.zeros_like, params["target"])}
    opened = config.objective.batches(model, config.data, config.seed, State(), 0, 1)
    measured = config.objective.prepare(model, unknown, (jax.device_put(rows) for rows, _, _ in opened))
    opened.close()
    for name, value in params["target"].items():
        np.testing.assert_allclose(measured["target"][name], value, rtol=1e-4, atol=1e-5)
