"""The second part of the micro tower's training, on strings that begin their captions.

Command: xgenmm train experiments/micro/vision_tower_reading.py --workdir runs/micro/vision_tower_reading (one GPU;
`make micro` runs all).
"""

from dataclasses import replace

from experiments.micro import common, vision_tower
from experiments.nano import vision_tower_reading
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    larger = vision_tower.larger(vision_tower_reading.config(), steps=6_000)
    return replace(larger, initialize=common.after("vision_tower"))
