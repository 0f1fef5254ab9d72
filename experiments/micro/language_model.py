"""The language model that micro starts from: nano's exercises, pictures in words.

Command: xgenmm train experiments/micro/language_model.py --workdir runs/micro/language_model (one GPU; `make micro`
runs all).
"""

from experiments.micro import common
from experiments.nano import language_model
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    return common.larger(language_model.config(), steps=2000, peak_lr=3e-3, initialize=Initialize(), rows=64)
