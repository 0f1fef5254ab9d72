"""The vision tower that micro starts from: nano's recipe for a tower of 6.4 million parameters.

Command: xgenmm train experiments/micro/vision_tower.py --workdir runs/micro/vision_tower
(one GPU; `make micro` runs all).
"""

from dataclasses import replace

from experiments.nano import vision_tower
from xgenmm_jax.models.sizes import MICRO_VISION
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    return larger(vision_tower.config(), steps=8_000)


def larger(nano: TrainConfig, steps: int) -> TrainConfig:
    """The same training with the larger tower, in bfloat16."""
    size = replace(
        nano.model,
        vision=MICRO_VISION,
        text=replace(nano.model.text, width=128, hidden=256, layers=2, out_width=MICRO_VISION.width),
        captioner=replace(nano.model.captioner, width=256, hidden=768, heads=8),
        dtype="bfloat16",
    )
    return replace(
        nano,
        name=nano.name.replace("nano/", "micro/"),
        model=size,
        data=replace(nano.data, batch_rows=128, threads=8, ahead=16),
        steps=steps,
        optimizer=replace(nano.optimizer, peak_lr=8e-4),
    )
