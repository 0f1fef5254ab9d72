"""What of a run a `Drawer` needs."""

from typing import Any

import jax

from xgenmm_jax.api.processor import Processor
from xgenmm_jax.data.to_draw import DrawingPrompt
from xgenmm_jax.generation.images.drawer import Drawer
from xgenmm_jax.models.blip3o import Blip3oConfig
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.drawing_rows import prompt_of
from xgenmm_jax.training.sharding import sharding_context


def drawer_of(run: TrainConfig, params: Any, processor: Processor, mesh: jax.sharding.Mesh) -> Drawer:
    """A drawer that asks as the run's data ask.

    Raises ValueError where the run has no drawing part.
    """
    model = run.model
    if not isinstance(model, Blip3oConfig):
        raise ValueError(
            "draw: the run has no drawing part; give one that was trained to draw (xgenmm train "
            "experiments/blip3o/pretrain.py, or make draw)."
        )
    asked = [prompt for source, _ in run.data.mixture if (prompt := prompt_of(source)) is not None]
    prompt = asked[0] if asked else DrawingPrompt(model.drawing.queries)
    return Drawer(
        model, params, processor.tokenizer, prompt, run.data.chat, run.data.row.length, sharding_context(mesh)
    )
