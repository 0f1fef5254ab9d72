"""Model FLOPs of a step that learns to draw; `flops.py` says what is counted and how often."""

import numpy as np

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.models import flops
from xgenmm_jax.models.blip3o import Blip3oConfig, EVATarget, LatentTarget
from xgenmm_jax.models.dit import DiTConfig


def drawing_flops(model: Blip3oConfig, rows: DrawingBatch, freeze: tuple[str, ...], draws: int = 1) -> float:
    """Of rows (numpy). draws: noised versions of each image.

    The decoder takes two passes where it is frozen, since gradients go through it to the queries, and three where it
    trains; the head three; the tower one for each image to draw. Of understanding samples the usual passes are added.
    """
    images = int(np.sum(np.asarray(rows.target_segment) > 0))
    workload = flops.workload_of(rows.batch, model)
    passes = flops.passes(freeze, reference=False)
    passes = passes._replace(decoder=max(passes.decoder, 2.0), attention=max(passes.attention, 2.0))
    understanding = flops.forward_flops(model, workload).times(passes).total
    drawing, side = model.drawing, model.target_side
    if isinstance(drawing.head, DiTConfig):
        head = draws * flops.dit_flops(drawing.head, side, side, drawing.queries)
    else:
        head = drawing.queries * flops.linear(model.decoder.width, model.target_channels)
    target = 0 if isinstance(drawing.target, LatentTarget) else flops.vision_flops(
        drawing.target.tower if isinstance(drawing.target, EVATarget) else model.vision
    )
    return float(understanding + images * (3 * head + target))
