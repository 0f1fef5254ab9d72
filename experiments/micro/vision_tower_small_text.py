"""The third part of the micro tower's training: lines of small text among the pictures.

Command: xgenmm train experiments/micro/vision_tower_small_text.py --workdir runs/micro/vision_tower_small_text
(one GPU; `make micro` runs all).
"""

from dataclasses import replace

from experiments.micro import common, vision_tower
from experiments.nano import vision_tower_small_text
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    larger = vision_tower.larger(vision_tower_small_text.config(), steps=4_000)
    return replace(larger, initialize=Initialize(vision=f"{common.RUNS}/vision_tower_reading"))
