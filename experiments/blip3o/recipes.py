"""What the experiments that draw share: models, captions with their images, rows, the optimizer.

Published: docs/reference/blip3o.md#recipe. Ours: the target, which are our own tower's features, so that reading and
drawing images share one space; the moving average, since styles change from one checkpoint to the next; packed rows.
Hours are estimates of `xgenmm plan`, at half of a TPU v5p's and 0.4 of a v6e's peak.
"""

from dataclasses import replace

from experiments import recipes
from experiments.mixtures import Mixture
from experiments.recipes import Size
from xgenmm_jax.data.rows.config import Asking, DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.models import sizes
from xgenmm_jax.models.autoencoder import AutoencoderConfig
from xgenmm_jax.models.blip3o import Blip3oConfig, DrawingConfig, FlowPixels, TowerTarget
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.training.optimizer import OptimizerConfig

GRID = 8
"""Cells along a side: so400m's 27 x 27 patches at 384 px, averaged over windows of three or four patches a side. A
window of 3 would give 9 x 9, and 81 queries; 8 x 8 are the published 64 of both."""
QUERIES = GRID**2
AVERAGE_DECAY = 0.9999
WARMUP = 0.003
"""Share of the steps."""

ADAMW = OptimizerConfig(
    peak_lr=1e-4, schedule="cosine", warmup_from_zero=True, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0,
    clip_norm=1.0,
)  # fmt: skip
"""Of both stages. Without clipping training diverges."""

LATENTS = AutoencoderConfig(image_size_px=384, patch_px=16, channels=16, width=768, layers=12, heads=12, remat="full")
"""24 x 24 latents of an image, 0.17 billion parameters: ours, since SDXL's and SANA's are weights of others."""


def pixels(size: Size) -> FlowPixels:
    """Features to latents by a diffusion transformer as large as the one that draws features."""
    dit = replace(sizes.BLIP3O_4B, channels=LATENTS.channels, context_width=size.model.vision.width)
    return FlowPixels(dit, LATENTS)


def model(size: Size) -> Blip3oConfig:
    """The understanding model and all that draws: features of its own tower, then pixels of them."""
    drawing = DrawingConfig(head=head(size), target=TowerTarget(grid=GRID), queries=QUERIES, pixels=pixels(size))
    return Blip3oConfig(**vars(size.model), drawing=drawing)


def head(size: Size) -> DiTConfig:
    """The released diffusion transformer's width, layers and heads, between our decoder and our tower."""
    return replace(sizes.BLIP3O_4B, channels=size.model.vision.width, context_width=size.model.decoder.width)


def rows(mixture: Mixture, batch_rows: int) -> DataConfig:
    """Rows of 512 positions with room for 3 captions to draw; no system prompt, which would take 34 of them each.

    A caption takes 83 positions beside its words: turns, instruction, the vector that begins an image, 64 queries. With
    120 (30 by standard deviation), 20 and 30 tokens of words in long, short and JourneyDB's captions a packed row holds
    2.6: 0.92 of the positions are filled and 0.88 of the places for images. Room for 4 would fill 0.94 and 0.68, and
    tower and transformer compute empty places too; rows of 2048 with 11 would fill 0.96 and 1.00, but 47 of them are a
    step, too few for a pod.
    """
    return DataConfig(
        mixture=mixture,
        tokenizer=recipes.TOKENIZER,
        row=RowConfig(length=512, crops=1, images=1, vision_tokens=128, segments=3, too_long="drop"),
        anyres=recipes.BASE_RESOLUTION,
        batch_rows=batch_rows,
        chat=ChatStyle(system=None),
        loader=recipes.LOADER,
        held_out_one_in=recipes.HELD_OUT_ONE_IN,
        target_px=384,
        asked=Asking(recipes.HIGH_RESOLUTION),
    )


def optimizer(steps: int, final_fraction: float) -> OptimizerConfig:
    """ADAMW with the published share of warm-up."""
    return replace(ADAMW, warmup_steps=round(WARMUP * steps), final_fraction=final_fraction)
