"""What the two stages of BLIP-2 share: data, the tower's file, rates.

Paper: arXiv 2301.12597. The public config of LAVIS differs: COCO and Visual Genome alone, 10 epochs of 16 x 100 images,
beta2 0.999, a warm-up of 5,000 steps from 1e-6, and a rate that falls by epoch to 1e-5.
"""

from experiments import mixtures
from experiments.mixtures import Mixture
from xgenmm_jax.data.readers.blip_captions import BlipCaptions
from xgenmm_jax.data.readers.random_crops import RandomCrops
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.training.optimizer import OptimizerConfig

TOWER = "weights/blip2_eva_g"
"""`xgenmm convert` of LAVIS' first stage or of transformers' Blip2ForImageTextRetrieval: EVA-CLIP-g is in either."""
PEAK_LR = 1e-4
LEAST_LR_STAGE1 = 1e-5
"""The public config's; the paper names none for this stage."""
LEAST_LR_STAGE2 = 5e-5


def mixture() -> Mixture:
    """129M images by their numbers, captions cleaned as BLIP's, images cropped and turned at random."""
    published = mixtures.mixture(mixtures.BLIP2)
    return tuple((Mapped(Mapped(source, BlipCaptions()), RandomCrops()), weight) for source, weight in published)


def optimizer(least_lr: float) -> OptimizerConfig:
    """The paper's: betas, decay, warm-up; nothing is clipped, and biases and norms do not decay."""
    return OptimizerConfig(
        peak_lr=PEAK_LR,
        schedule="cosine",
        warmup_steps=2000,
        final_fraction=least_lr / PEAK_LR,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        decay_vectors=False,
        clip_norm=0.0,
    )
