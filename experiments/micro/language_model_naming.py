"""The last part of micro's language model: nano's mixture.

Command: xgenmm train experiments/micro/language_model_naming.py --workdir runs/micro/language_model_naming (one GPU;
`make micro` runs all).
"""

from experiments.micro import common
from experiments.nano import language_model_naming
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    start = common.after("language_model_finding")
    return common.larger(language_model_naming.config(), steps=500, peak_lr=3e-3, initialize=start, rows=64)
