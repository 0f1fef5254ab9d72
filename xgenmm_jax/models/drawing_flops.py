"""Model FLOPs of a step that learns to draw; `flops.py` says what is counted and how often."""

import numpy as np

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.models import flops
from xgenmm_jax.models.autoencoder import AutoencoderConfig, PixelDecoderConfig, layers_of
from xgenmm_jax.models.blip3o import Blip3oConfig, LatentTarget
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.models.flops import Flops, Workload


def images_of(rows: DrawingBatch) -> int:
    """Images to draw in rows (numpy)."""
    return int(np.sum(np.asarray(rows.target_segment) > 0))


def drawing_flops(model: Blip3oConfig, load: Workload, images: int, freeze: tuple[str, ...], draws: int = 1) -> Flops:
    """Of a step whose decoder reads captions. load: of all samples, captions and others. draws: noised versions of each
    image.

    The decoder takes two passes where it is frozen, since gradients go through it to the queries, and three where it
    trains; its attention, which has no weights, three; the head three; what makes features of the images to draw one.
    Of understanding samples the usual passes are added.
    """
    passes = flops.passes(freeze, reference=False)
    passes = passes._replace(decoder=max(passes.decoder, 2.0), attention=max(passes.attention, 3.0))
    understanding = flops.forward_flops(model, load).times(passes)
    drawing, side = model.drawing, model.target_side
    if isinstance(drawing.head, DiTConfig):
        head = draws * flops.dit_flops(drawing.head, side, side, drawing.queries)
    else:
        head = drawing.queries * flops.linear(model.decoder.width, model.target_channels)
    return understanding._replace(drawing=float(3 * head * images), target=float(images * target_flops(model)))


def pixel_flops(images: int, trained: int, frozen: int) -> Flops:
    """Of a step on images alone. trained, frozen: FLOPs of one image through what trains, and what makes its target."""
    return Flops(0.0, 0.0, 0.0, 0.0, 0.0, drawing=float(3 * images * trained), target=float(images * frozen))


def target_flops(model: Blip3oConfig) -> int:
    """FLOPs of what is drawn of one image: a tower's features, or latents."""
    target = model.drawing.target
    if isinstance(target, LatentTarget):
        return encoder_flops(target.autoencoder)
    return flops.vision_flops(model.target_tower)


def encoder_flops(config: AutoencoderConfig) -> int:
    """FLOPs of one image to its latents."""
    return flops.vision_flops(layers_of(config)) + config.side**2 * flops.linear(config.width, config.channels)


def pixel_decoder_flops(config: PixelDecoderConfig) -> int:
    """FLOPs of one image's features, or latents, to its pixels; that map is as large as a tower's from pixels."""
    cells = config.grid**2 * flops.linear(config.channels, (config.patches // config.grid) ** 2 * config.width)
    return flops.vision_flops(layers_of(config)) + cells
