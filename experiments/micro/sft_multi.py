"""Fine-tuning on several pictures at micro.

Command: xgenmm train experiments/micro/sft_multi.py --workdir runs/micro/sft_multi (one GPU; `make micro` runs all).
"""

from experiments.micro import common
from experiments.nano import sft_multi
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    return common.larger(sft_multi.config(), steps=600, peak_lr=1.5e-3, initialize=common.after("sft_single"))
