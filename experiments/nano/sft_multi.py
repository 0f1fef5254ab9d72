"""Fine-tuning on several pictures at nano, with single pictures mixed in so that they are not forgotten.

Command: xgenmm train experiments/nano/sft_multi.py --workdir runs/demo/sft_multi (about 2 minutes on 2 cores).
"""

from experiments.nano import common
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    pages = common.family("page_questions")
    mixture = (
        (common.family("multi_image"), 0.30),
        (common.family("questions"), 0.46),
        (common.family("lookups"), 0.04),
        (pages, 0.16),
        (common.single_views(pages), 0.04),
    )
    data = common.data(mixture, common.ANY_RES, length=320, crops=8, batch_rows=6)
    return common.stage("sft_multi", data, steps=230, peak_lr=5e-4, initialize=common.after("sft_single"))
