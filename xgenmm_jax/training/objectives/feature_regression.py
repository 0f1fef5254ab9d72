"""Features of an image straight from the decoder's states, by squared error: one image a prompt, no noise.

Source: docs/reference/blip3o.md#designs-compared (design a of the study).
"""

from dataclasses import dataclass

import jax.numpy as jnp

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.models import blip3o, drawing_features
from xgenmm_jax.models.blip3 import VLM
from xgenmm_jax.models.blip3o import Blip3oConfig, DrawingHead, LinearHead
from xgenmm_jax.training.objectives.base import Items, Params
from xgenmm_jax.training.objectives.drawing_rows import DrawingRows, drawn_items, flat
from xgenmm_jax.training.objectives.packed_rows import trains_vision


@dataclass(frozen=True)
class FeatureRegression(DrawingRows):
    """Mean squared error, averaged over the images of the global batch."""

    def check(self, model: Blip3oConfig, data: DataConfig) -> None:
        super().check(model, data)
        if not isinstance(model.drawing.head, LinearHead):
            raise ValueError("model.drawing.head: regression needs a LinearHead; give one, or FlowMatching.")

    def items(
        self, model: Blip3oConfig, params: Params, reference: Params | None, rows: DrawingBatch, freeze: tuple[str, ...]
    ) -> Items:
        """The images to draw."""
        hidden = blip3o.states(VLM(model, trains_vision(freeze)), params, rows, has_images=False)
        states = flat(blip3o.at_queries(hidden, rows, model.drawing.queries))
        predicted = DrawingHead(model).apply({"params": params["drawing"]}, states, method="features")
        raw = drawing_features.raw_features(model, params, flat(rows.target_pixels))
        losses = jnp.mean(jnp.square(predicted - drawing_features.normalised(model, params, raw)), axis=(1, 2, 3))
        return drawn_items(rows, losses.reshape(rows.target_segment.shape))
