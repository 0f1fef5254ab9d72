"""Fine-tuning on several pictures at nano, with single pictures mixed in so that they are not forgotten.

Command: xgenmm train experiments/nano/sft_multi.py --workdir runs/demo/sft_multi (about 2 minutes on 2 cores).
"""

from experiments.nano import recipes
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    pages = recipes.family("page_questions")
    mixture = (
        (recipes.family("multi_image"), 0.30),
        (recipes.family("questions"), 0.46),
        (recipes.family("lookups"), 0.04),
        (pages, 0.16),
        (recipes.single_views(pages), 0.04),
    )
    data = recipes.data(mixture, recipes.ANY_RES, length=320, crops=8, batch_rows=6)
    return recipes.stage("sft_multi", data, steps=230, peak_lr=5e-4, initialize=recipes.after("sft_single"))
