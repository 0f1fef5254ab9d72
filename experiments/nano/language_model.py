"""The language model that nano starts from: the world's language without pictures, from random weights.

Command: make starting-weights, or
xgenmm train experiments/nano/language_model.py --workdir runs/weights/language_model
"""

from dataclasses import replace

from experiments.nano import common
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    mixture = ((common.family("text", 2_000_000), 0.7), (common.family("text_chat", 2_000_000), 0.3))
    data = common.data(mixture, common.ONE_VIEW, length=320, crops=1, batch_rows=16)
    config = common.stage("language_model", data, steps=700, peak_lr=2e-3, initialize=Initialize(), warmup_steps=100)
    # Muon fits language alone faster, and what it leaves learns to look at pictures more slowly (docs/log.md).
    optimizer = replace(config.optimizer, algorithm="adamw")
    return replace(config, optimizer=optimizer, freeze=("vision", "connector"), log_every=50)
