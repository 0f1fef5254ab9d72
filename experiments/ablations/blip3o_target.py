"""What is drawn: features of the image tower, or latents of an autoencoder?

Paper: BLIP3-o (arXiv 2505.09568), its study of designs: b (features) and c (latents), no table published.
Command: xgenmm train experiments/ablations/blip3o_target.py:features
         xgenmm train experiments/ablations/blip3o_target.py:autoencoder    then :latents; all with --at nano too
Hardware: as experiments/blip3o/pretrain.py; nano: 2 CPU cores.
Hours: as there for each arm, and less for the autoencoder; nano: about ten minutes an arm.
Expected: features above in alignment (GenEval, DPG-Bench), latents of the lowest FID.

Both by flow matching. The autoencoder is what the pixel decoder is to features: trained before, on the same images, its
latents scaled to mean 0 and variance 1 by channel. Its latents are drawn in patches of 2 x 2, which at nano gives the
DiT as many tokens as features have cells (16); at full size 144 instead of 64.
"""

from dataclasses import replace

from experiments.ablations import blip3o_objective
from experiments.ablations.blip3o_objective import study_arm, with_drawing
from experiments.blip3o import pretrain
from experiments.recipes import Base
from xgenmm_jax.models.autoencoder import AutoencoderConfig
from xgenmm_jax.models.blip3o import UNDERSTANDING, Blip3oConfig, FlowPixels, LatentTarget
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.pixel_decoding import Autoencoding

PATCH = 2
CODER = AutoencoderConfig(image_size_px=64, patch_px=8, channels=16, width=128, hidden=384, layers=3, heads=4)
"""Nano's: sides of 8 latents, decoded by as many layers as its pixel decoder has. A stage whose pixels are drawn in
latents has one of its own size."""


def config() -> TrainConfig:
    return features()


def features(base: Base = pretrain.config) -> TrainConfig:
    return blip3o_objective.flow(base)


def autoencoder(base: Base = pretrain.config) -> TrainConfig:
    """What `latents` needs first."""
    arm = _of_latents(study_arm(base(), "target/autoencoder"))
    return replace(
        arm,
        objective=Autoencoding(),
        initialize=Initialize(run=arm.initialize.run, fresh=("drawing", "target")),
        freeze=(*UNDERSTANDING, "drawing", "target/mean", "target/std"),
    )


def latents(base: Base = pretrain.config) -> TrainConfig:
    arm = _of_latents(study_arm(base(), "target/latents"))
    return replace(
        arm,
        initialize=Initialize(run=f"runs/{autoencoder(base).name}", fresh=("drawing",)),
        freeze=(*UNDERSTANDING, "target"),
    )


def _of_latents(arm: TrainConfig) -> TrainConfig:
    """The arm with latents of an autoencoder to draw, which makes pixels of them too."""
    model: Blip3oConfig = arm.model
    pixels = model.drawing.pixels
    coder = pixels.autoencoder if isinstance(pixels, FlowPixels) else CODER
    head = replace(model.drawing.head, channels=coder.channels, patch=PATCH)
    changed = with_drawing(arm, replace(model.drawing, head=head, target=LatentTarget(coder), pixels=None))
    return replace(changed, data=replace(arm.data, target_px=coder.image_size_px))
