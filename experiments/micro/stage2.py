"""Stage 2 at micro: nano's mixture, high resolution.

Command: xgenmm train experiments/micro/stage2.py --workdir runs/micro/stage2 (one GPU; `make micro` runs all).
"""

from experiments.micro import common
from experiments.nano import stage2
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    return common.larger(stage2.config(), steps=700, peak_lr=1.5e-3, initialize=common.after("stage1"))
