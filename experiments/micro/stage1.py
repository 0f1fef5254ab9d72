"""Stage 1 at micro: nano's mixture, base resolution.

Command: xgenmm train experiments/micro/stage1.py --workdir runs/micro/stage1 (one GPU; `make micro` runs all).
"""

from dataclasses import replace

from experiments.micro import common
from experiments.nano import stage1
from xgenmm_jax.nano.connector_start import pooling_start
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    start = Initialize(vision=f"{common.RUNS}/vision_tower_small_text", decoder=f"{common.RUNS}/language_model_naming")
    start = replace(start, connector_start=pooling_start)
    return common.larger(stage1.config(), steps=1500, peak_lr=3e-3, initialize=start)
