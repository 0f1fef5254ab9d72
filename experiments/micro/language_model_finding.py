"""The second part of the micro language model's training, as nano's.

Command: xgenmm train experiments/micro/language_model_finding.py --workdir runs/micro/language_model_finding (one GPU;
`make micro` runs all).
"""

from experiments.micro import common
from experiments.nano import language_model_finding
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    start = common.after("language_model")
    return common.larger(language_model_finding.config(), steps=1200, peak_lr=3e-3, initialize=start, rows=64)
