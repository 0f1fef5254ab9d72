"""Runs that learn to draw: what they leave alone, how they resume, what is drawn from them."""

import dataclasses
import shutil

import drawing_cases as cases
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import xgenmm_jax
from xgenmm_jax.api.conversion import export_checkpoint
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.models import blip3
from xgenmm_jax.training import loop
from xgenmm_jax.training.config import CheckpointConfig, TrainConfig
from xgenmm_jax.training.objectives.flow_matching import FlowMatching
from xgenmm_jax.training.objectives.pixel_decoding import PixelDecoding
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.runs.initialize import random_params

pytestmark = pytest.mark.slow


def config(**changes) -> TrainConfig:
    one = TrainConfig(
        name="drawing",
        model=cases.model(),
        data=cases.data(segments=4, batch_rows=2),
        objective=FlowMatching(),
        steps=4,
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=1),
        freeze=cases.FROZEN,
        checkpoint=CheckpointConfig(every_steps=2, every_seconds=0.0),
        log_every=1,
        average_decay=0.9,
    )
    return dataclasses.replace(one, **changes)


def train(config: TrainConfig, folder) -> None:
    loop.train(config, folder, jax.devices()[:1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An unbroken run of four steps."""
    folder = tmp_path_factory.mktemp("run") / "run"
    train(config(), folder)
    return folder


def test_understanding_is_what_it_was_to_the_bit(folder):
    """Its parameters are those that a run without a drawing part begins with."""
    model = xgenmm_jax.load(folder, average=False)
    vlm = {name: getattr(model.config, name) for name in (f.name for f in dataclasses.fields(blip3.VLMConfig))}
    began = random_params(lambda key: blip3.initialize(blip3.VLMConfig(**vlm), key), 0, _layout(model.params))
    for part in ("vision", "connector", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, model.params[part], began[part])


def _layout(params):
    parts = {part: params[part] for part in ("vision", "connector", "decoder")}
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), parts)


def test_a_run_that_is_stopped_draws_what_the_unbroken_one_draws(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    train(config(), tmp_path / "run")
    both = [xgenmm_jax.load(one) for one in (folder, tmp_path / "run")]
    jax.tree.map(np.testing.assert_array_equal, both[0].params, both[1].params)
    drawn = [one.draw(["a red star"], 1, sampling=Sampling(steps=2))[0] for one in both]
    assert (drawn[0].images == drawn[1].images).all()


def test_the_average_is_drawn_with_and_is_not_the_last_step(folder):
    average, last = (xgenmm_jax.load(folder, average=wanted).params for wanted in (True, False))
    assert not np.array_equal(average["drawing"]["queries"], last["drawing"]["queries"])
    np.testing.assert_allclose(average["drawing"]["queries"], last["drawing"]["queries"], atol=1e-2)
    np.testing.assert_array_equal(average["target"]["std"], last["target"]["std"])
    assert (np.asarray(last["target"]["std"]) > 0).all(), "measured at the start"


def test_the_average_is_exported_as_it_is_loaded(folder, tmp_path):
    """Files of the last step's parameters were written, with which nothing had been drawn."""
    export_checkpoint(folder, tmp_path / "released", "blip3o")
    exported = load_file(tmp_path / "released" / "model.safetensors")
    expected = xgenmm_jax.load(folder).params["drawing"]
    np.testing.assert_array_equal(exported["model.latent_queries"][0], expected["queries"])
    gates = exported["model.dit.model.layers.0.gate"]
    np.testing.assert_array_equal(gates, expected["dit"]["layers"]["gate"][0])
    assert gates.any()


def test_a_step_with_decay_leaves_the_statistics(folder, tmp_path):
    """Those of the same images, where `freeze` leaves them out."""
    optimizer = OptimizerConfig(peak_lr=0.1, warmup_steps=0, weight_decay=1.0)
    train(config(freeze=("vision", "connector", "decoder"), optimizer=optimizer, steps=2), tmp_path / "run")
    measured, still = (xgenmm_jax.load(one).params["target"] for one in (folder, tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, still, measured)


def test_pixels_are_learned_beside_a_frozen_rest(tmp_path):
    frozen = (*cases.FROZEN[:-1], "drawing")
    train(config(objective=PixelDecoding(), freeze=frozen, steps=2), tmp_path / "run")
    model = xgenmm_jax.load(tmp_path / "run")
    (drawing,) = model.draw(["a red star"], 1, sampling=Sampling(steps=1))
    assert drawing.images.shape == (1, 64, 64, 3)
