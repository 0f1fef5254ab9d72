"""How much stage-1 data does the base model need?

Paper: figure 5: few-shot captions of COCO and TextCaps gain much from 2B to 60B tokens and moderately from 60B to
100B. The points stand in an image; there is no fine-tuning.
Command: xgenmm train experiments/ablations/data_scale.py               one run, a checkpoint every 2B tokens
         xgenmm train experiments/ablations/data_scale.py:percent_10    a run of its own, its schedule ends at 10B
         percent_2, _10, _20, _40, _60, _100: of stage 1's budget, which at 4B is 100B tokens; all with --at nano too
Hardware: 64 TPU v5p chips; nano: 2 CPU cores.
Hours: 57 for the long run and for 100B, 1.1 for 2B (estimates, experiments/recipes.py); nano: minutes.
Expected: CIDEr rises with the logarithm of tokens and flattens after 60B.

The paper does not say whether its points are one run's checkpoints or runs of their own; checkpoints of the long run
are handicapped by a rate that has not fallen yet, so both are here. All that differs between the runs of their own is
`steps`.
"""

from dataclasses import replace

from experiments import recipes, stage1
from experiments.recipes import Base
from xgenmm_jax.training.config import CheckpointConfig, TrainConfig

LEAST_BETWEEN = 34
"""Steps between checkpoints of the long run, at least: a tenth of nano's stage 1."""


def config(base: Base = stage1.config) -> TrainConfig:
    whole = base()
    every = max(round(whole.steps / 50), LEAST_BETWEEN)
    checkpoint = CheckpointConfig(every_steps=every, every_seconds=0.0, keep=-(-whole.steps // every) + 1)
    return replace(recipes.arm(whole, "data_scale/long"), checkpoint=checkpoint)


def percent_2(base: Base = stage1.config) -> TrainConfig:
    return _part(base(), 2)


def percent_10(base: Base = stage1.config) -> TrainConfig:
    return _part(base(), 10)


def percent_20(base: Base = stage1.config) -> TrainConfig:
    return _part(base(), 20)


def percent_40(base: Base = stage1.config) -> TrainConfig:
    return _part(base(), 40)


def percent_60(base: Base = stage1.config) -> TrainConfig:
    return _part(base(), 60)


def percent_100(base: Base = stage1.config) -> TrainConfig:
    return _part(base(), 100)


def _part(base: TrainConfig, percent: int) -> TrainConfig:
    # One warmup for all, short enough for 2 percent: little more than half of its steps.
    optimizer = replace(base.optimizer, warmup_steps=min(base.optimizer.warmup_steps, base.steps // 90))
    steps = round(base.steps * percent / 100)
    return replace(recipes.arm(base, f"data_scale/{percent}"), steps=steps, optimizer=optimizer)
