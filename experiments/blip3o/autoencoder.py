"""The autoencoder that pixels are drawn in: how few numbers hold an image of 384 px?

Paper: none; BLIP3-o takes over SDXL's and SANA's (docs/reference/blip3o.md#pixel-decoder), which are weights of others.
Command: xgenmm train experiments/blip3o/autoencoder.py         14B: xgenmm train experiments/blip3o/autoencoder.py:b14
Starts from: runs/4b/sft_multi, which stays as it is and is carried along, for the stages after this one.
Hardware: 128 TPU v5p chips (--for v5p:4x4x8), which take 256 rows a step, in 75,000 steps.
Hours: about half of one; an estimate, see recipes.py.
Expected: no published number. 9,216 numbers stand for an image's 442,368, as many as SDXL's 4 a cell of 48 x 48.

All of it is ours: a transformer over 24 x 24 patches each way, 16 numbers a patch, mean |error| + error^2. It has
neither a perceptual nor an adversarial loss, so that fine texture comes out smooth.
"""

from dataclasses import replace

from experiments.blip3o import pretrain
from experiments.blip3o import recipes as drawing
from experiments.recipes import B4, B14, Size
from xgenmm_jax.models.blip3o import UNDERSTANDING
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.pixel_decoding import Autoencoding

STEPS = 100_000


def config(size: Size = B4) -> TrainConfig:
    return replace(
        pretrain.config(size),
        name=f"{size.name}/blip3o/autoencoder",
        objective=Autoencoding(part="pixels"),
        steps=STEPS,
        optimizer=drawing.optimizer(STEPS, final_fraction=0.1),
        initialize=Initialize(run=size.run("sft_multi"), fresh=("drawing", "target", "pixels")),
        freeze=(*UNDERSTANDING, "drawing", "target", "pixels/dit", "pixels/mean", "pixels/std"),
    )


def b14() -> TrainConfig:
    return config(B14)
