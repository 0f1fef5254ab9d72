"""Fine-tuning on single pictures at micro.

Command: xgenmm train experiments/micro/sft_single.py --workdir runs/micro/sft_single (one GPU; `make micro` runs all).
"""

from experiments.micro import common
from experiments.nano import sft_single
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    return common.larger(sft_single.config(), steps=2000, peak_lr=3e-3, initialize=common.after("stage2"))
