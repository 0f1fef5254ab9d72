"""The third part of the nano tower's training: two fifths of the images are lines of small text.

Command: make starting-weights, or
xgenmm train experiments/nano/starting_weights/vision_tower_small_text.py --workdir runs/weights/vision_tower_small_text
After `vision_tower_reading` a captioner on the frozen tower reads 68 % of strings of any size but 31 % of those
of 8 to 12 pixels, and no stage that reads pages can make up for it, as the tower is frozen then
(docs/log/vision_tower.md#a-tower-that-reads-small-text). Only the tower is taken over: its captioner starts anew.
"""

from dataclasses import replace

from experiments.nano import recipes
from experiments.nano.starting_weights import vision_tower
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    first = vision_tower.config()
    mixture = (
        (recipes.family("dense", 4_000_000), 0.33),
        (recipes.family("ocr", 4_000_000), 0.15),
        (recipes.family("small_text", 4_000_000), 0.40),
        (recipes.family("caption", 4_000_000), 0.12),
    )
    return replace(
        first,
        name="nano/vision_tower_small_text",
        data=replace(first.data, mixture=mixture),
        steps=7_500,
        optimizer=replace(first.optimizer, peak_lr=1.2e-3, warmup_steps=300),
        initialize=Initialize(vision="runs/weights/vision_tower_reading"),
        seed=2,
    )
