"""What a diffusion decoder of pixels learns to make has mean 0 and variance 1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fixtures import drawing_cases
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.models import blip3o, drawing_features
from xgenmm_jax.models.autoencoder import AutoencoderConfig
from xgenmm_jax.models.blip3o import FlowPixels
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.objectives import drawing_rows
from xgenmm_jax.training.objectives.pixel_decoding import FlowPixelDecoding

CODER = AutoencoderConfig(image_size_px=64, patch_px=16, channels=3, width=16, hidden=32, layers=1, heads=2)


@pytest.mark.slow  # compiles five small programs
def test_latents_are_measured_before_a_diffusion_decoder_trains(monkeypatch):
    """They were learned as they came, whatever their size, against noise of variance 1."""
    monkeypatch.setattr(drawing_rows, "STATISTICS_IMAGES", 8)
    base = drawing_cases.model()
    channels = base.target_channels
    dit = DiTConfig(3, width=16, layers=1, heads=2, kv_heads=2, context_width=channels, multiple_of=16)
    drawing = dataclasses.replace(base.drawing, pixels=FlowPixels(dit, CODER))
    model = dataclasses.replace(base, drawing=drawing)
    params = unboxed(jax.jit(lambda key: blip3o.initialize(model, key))(jax.random.key(0)))
    objective, data = FlowPixelDecoding(), drawing_cases.data(segments=2, batch_rows=4)
    opened = objective.batches(model, data, 0, State(), 0, 1)
    batches = [jax.tree.map(jnp.asarray, next(opened)[0]) for _ in range(4)]
    opened.close()
    prepared = objective.prepare(model, params, iter(batches))
    assert np.all(np.asarray(prepared["pixels"]["std"]) > 0) and np.any(np.asarray(prepared["target"]["std"]) > 0)
    # Each batch has all eight pictures: the first gave the features' statistics, the second those of the latents.
    pixels = batches[1].target_pixels[batches[1].target_segment > 0]
    latents = np.asarray(jax.jit(lambda x: drawing_features.pixel_latents(model, prepared, x))(pixels))
    np.testing.assert_allclose(latents.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(latents.std((0, 1, 2)), 1, atol=1e-3)
    again = objective.prepare(model, prepared, iter(()))
    assert again is prepared
