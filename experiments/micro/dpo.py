"""Preference tuning at micro.

Command: xgenmm train experiments/micro/dpo.py --workdir runs/micro/dpo (one GPU; `make micro` runs all).
"""

from experiments.micro import common
from experiments.nano import dpo
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    return common.larger(dpo.config(), steps=150, peak_lr=1e-4, initialize=common.after("sft_multi"))
