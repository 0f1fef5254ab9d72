"""Features to pixels at full size: can a second diffusion model paint what 64 features of an image say?

Paper: BLIP3-o (arXiv 2505.09568) takes over a decoder; this one follows its SigLIP2-and-SANA variant's published code
(docs/reference/blip3o.md#pixel-decoder).
Command: xgenmm train experiments/blip3o/pixel_decoder.py     14B: xgenmm train experiments/blip3o/pixel_decoder.py:b14
Starts from: runs/4b/blip3o/autoencoder.
Hardware: 128 TPU v5p chips (--for v5p:4x4x8), which take 256 rows a step, in 112,500 steps.
Hours: about 4; an estimate, see recipes.py.
Expected: no published number. The released one saw some 300 million images, this one 77 million.

Published, of that variant: cross-attention on the 64 features, the same loss, no condition with 0.1, 1e-4 by a cosine,
5,000 steps of warm-up, decay 0.05, clipping at 0.5, features and autoencoder frozen. Ours: the transformer (that of
pretrain.py, over 24 x 24 latents), the autoencoder, zeros as the null condition in place of a black image's features.
"""

from dataclasses import replace

from experiments.blip3o import pretrain
from experiments.blip3o import recipes as drawing
from experiments.recipes import B4, B14, Size
from xgenmm_jax.models.blip3o import UNDERSTANDING
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.pixel_decoding import FlowPixelDecoding


def config(size: Size = B4) -> TrainConfig:
    return replace(
        pretrain.config(size),
        name=f"{size.name}/blip3o/pixel_decoder",
        objective=FlowPixelDecoding(drop=0.1),
        optimizer=replace(drawing.ADAMW, warmup_steps=5000, weight_decay=0.05, clip_norm=0.5),
        initialize=Initialize(run=size.run("blip3o/autoencoder")),
        freeze=(*UNDERSTANDING, "drawing", "target", "pixels/autoencoder", "pixels/mean", "pixels/std"),
    )


def b14() -> TrainConfig:
    return config(B14)
