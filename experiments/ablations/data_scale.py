"""How much stage-1 data does the base model need?

Paper: figure 5: few-shot captions of COCO and TextCaps gain much from 2B to 60B tokens and moderately from 60B to
100B. The points stand in a picture; there is no fine-tuning.
Command: xgenmm train experiments/ablations/data_scale.py               one run, a checkpoint every 2B tokens
         xgenmm train experiments/ablations/data_scale.py:tokens_10b    a run of its own, its schedule ends at 10B
         xgenmm train experiments/ablations/data_scale.py:nano_10       at nano: 10 percent of the steps
Hardware: 64 TPU v5p chips; nano: 2 CPU cores.
Hours: 57 for the long run and for 100B, 1.1 for 2B (estimates, experiments/recipes.py); nano: minutes.
Expected: CIDEr rises with the logarithm of tokens and flattens after 60B.

The paper does not say whether its points are one run's checkpoints or runs of their own; checkpoints of the long run
are handicapped by a rate that has not fallen yet, so both are here. All that differs between the runs of their own is
`steps`.
"""

from dataclasses import replace

from experiments import recipes, stage1
from experiments.nano import stage1 as nano_stage1
from xgenmm_jax.training.config import CheckpointConfig, TrainConfig

NAME = "ablations/data_scale"


def config() -> TrainConfig:
    every = recipes.steps_of(2e9)
    return replace(
        stage1.config(),
        name=f"4b/{NAME}/long",
        checkpoint=CheckpointConfig(every_steps=every, every_seconds=0.0, keep=51),
    )


def tokens_2b() -> TrainConfig:
    return _own(2)


def tokens_10b() -> TrainConfig:
    return _own(10)


def tokens_20b() -> TrainConfig:
    return _own(20)


def tokens_40b() -> TrainConfig:
    return _own(40)


def tokens_60b() -> TrainConfig:
    return _own(60)


def tokens_100b() -> TrainConfig:
    return _own(100)


def _own(billions: int) -> TrainConfig:
    return replace(stage1.config(), name=f"4b/{NAME}/{billions}b", steps=recipes.steps_of(billions * 1e9))


def nano() -> TrainConfig:
    base = nano_stage1.config()
    checkpoint = CheckpointConfig(every_steps=base.steps // 10, every_seconds=0.0, keep=11)
    return replace(base, name=f"nano/{NAME}/long", checkpoint=checkpoint)


def nano_2() -> TrainConfig:
    return _nano_own(2)


def nano_10() -> TrainConfig:
    return _nano_own(10)


def nano_20() -> TrainConfig:
    return _nano_own(20)


def nano_60() -> TrainConfig:
    return _nano_own(60)


def nano_100() -> TrainConfig:
    return _nano_own(100)


def _nano_own(percent: int) -> TrainConfig:
    base = nano_stage1.config()
    # One warmup for all, short enough for 2 percent.
    optimizer = replace(base.optimizer, warmup_steps=base.steps // 100)
    return replace(base, name=f"nano/{NAME}/{percent}", steps=base.steps * percent // 100, optimizer=optimizer)
