"""BLIP3-o's instruction tuning: do 60,000 well-made images mend what pre-training draws badly?

Paper: BLIP3-o (arXiv 2505.09568), the section on BLIP3o-60k.
Command: xgenmm train experiments/blip3o/tune.py                 14B: xgenmm train experiments/blip3o/tune.py:b14
Starts from: runs/4b/blip3o/pretrain; not from a tuned run, which a second set ruins.
Hardware: 16 TPU v5p chips (--for v5p:2x2x4).
Hours: about half of one (4B), 1 (14B); estimates, see recipes.py.
Expected: 5 to 7 points on GenEval and DPG-Bench over pre-training, by the data set's card.

Published: the set, 10,000 steps or more of 128 images, 1e-4 to 0 by a cosine, all else as in pre-training. A set of
this form is made by `xgenmm curate tuning-set`. 48 rows hold some 126 images.
"""

from dataclasses import replace

from experiments import mixtures
from experiments.blip3o import pretrain
from experiments.blip3o import recipes as drawing
from experiments.recipes import B4, B14, Size
from xgenmm_jax.training.config import Initialize, TrainConfig

STEPS = 10_000
ROWS = 48


def config(size: Size = B4) -> TrainConfig:
    return replace(
        pretrain.config(size),
        name=f"{size.name}/blip3o/tune",
        data=drawing.rows(mixtures.mixture({"blip3o_60k": 1.0}), ROWS),
        steps=STEPS,
        optimizer=drawing.optimizer(STEPS, final_fraction=0.0),
        initialize=Initialize(run=size.run("blip3o/pretrain")),
    )


def b14() -> TrainConfig:
    return config(B14)
