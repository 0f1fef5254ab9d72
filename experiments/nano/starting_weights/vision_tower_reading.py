"""The second part of the nano tower's training: the same model and loss, nearly half of the images text alone.

Command: make starting-weights, or
xgenmm train experiments/nano/starting_weights/vision_tower_reading.py --workdir runs/weights/vision_tower_reading
After `vision_tower` it names and places things but reads nothing: a string's letters stand anywhere in a caption. Here
they begin it, `"K7Q"`, so that a letter's place in the caption is its place in the string. Reading sets in after some
1,200 steps (docs/log/vision_tower.md#a-tower-that-reads).
"""

from dataclasses import replace

from experiments.nano import recipes
from experiments.nano.starting_weights import vision_tower
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    first = vision_tower.config()
    mixture = (
        (recipes.family("dense", 4_000_000), 0.40),
        (recipes.family("ocr", 4_000_000), 0.45),
        (recipes.family("caption", 4_000_000), 0.15),
    )
    return replace(
        first,
        name="nano/vision_tower_reading",
        data=replace(first.data, mixture=mixture),
        steps=6_000,
        optimizer=replace(first.optimizer, warmup_steps=200),
        initialize=Initialize(run="runs/weights/vision_tower"),
        seed=1,
    )
