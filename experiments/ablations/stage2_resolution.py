"""Does stage 2 help, and at how many crops?

Paper: table 4: the 100B-token stage-1 model; no stage 2, or half the samples of a full one at two grids; then the same
fine-tuning on about 1M samples with at most 13 image patches.
Command: xgenmm train experiments/ablations/stage2_resolution.py:stage2_4    then :sft_4
         xgenmm train experiments/ablations/stage2_resolution.py:stage2_12   then :sft_12
         xgenmm train experiments/ablations/stage2_resolution.py:sft_none
         the same with nano_ before the names
Starts from: runs/4b/stage1; nano: runs/demo/stage1.
Hardware: 64 TPU v5p chips for stage 2, 16 for fine-tuning; nano: 2 CPU cores.
Hours: 3 a stage 2, 3 a fine-tuning (estimates, experiments/recipes.py); nano: minutes.
Expected, OCR / general VQA: none 64.6 / 63.5; up to 2x2, 1x3, 3x1 65.3 / 63.2; up to 3x4, 4x3 67.2 / 63.3.

Fine-tuning always sees 12 crops and the global view, so the grid of stage 2 is all that differs. At nano pages have 2x2
crops or strips of 1x3, so the smaller grid is 1x2 and 2x1, and half of the stage is as many steps as that says.
"""

from dataclasses import replace

from experiments import sft_single, stage2
from experiments.nano import recipes as nano_recipes
from experiments.nano import sft_single as nano_sft_single
from experiments.nano import stage2 as nano_stage2
from xgenmm_jax.data.anyres import GRIDS_12, GRIDS_RELEASED, Grid
from xgenmm_jax.training.config import Initialize, TrainConfig

NAME = "ablations/stage2_resolution"
NANO_GRIDS_2: tuple[Grid, ...] = ((1, 2), (2, 1))


def config() -> TrainConfig:
    return stage2_12()


def stage2_4() -> TrainConfig:
    return _half(stage2.config(), f"4b/{NAME}/stage2_4", GRIDS_RELEASED)


def stage2_12() -> TrainConfig:
    return _half(stage2.config(), f"4b/{NAME}/stage2_12", GRIDS_12)


def sft_none() -> TrainConfig:
    return sft_single.short(sft_single.config(), f"4b/{NAME}/sft_none", "runs/4b/stage1")


def sft_4() -> TrainConfig:
    return sft_single.short(sft_single.config(), f"4b/{NAME}/sft_4", f"runs/4b/{NAME}/stage2_4")


def sft_12() -> TrainConfig:
    return sft_single.short(sft_single.config(), f"4b/{NAME}/sft_12", f"runs/4b/{NAME}/stage2_12")


def nano_stage2_2() -> TrainConfig:
    return _half(nano_stage2.config(), f"nano/{NAME}/stage2_2", NANO_GRIDS_2)


def nano_stage2_4() -> TrainConfig:
    return _half(nano_stage2.config(), f"nano/{NAME}/stage2_4", GRIDS_RELEASED)


def nano_sft_none() -> TrainConfig:
    return replace(nano_sft_single.config(), name=f"nano/{NAME}/sft_none", initialize=nano_recipes.after("stage1"))


def nano_sft_2() -> TrainConfig:
    return _nano_sft(2)


def nano_sft_4() -> TrainConfig:
    return _nano_sft(4)


def _half(base: TrainConfig, name: str, grids: tuple[Grid, ...]) -> TrainConfig:
    data = replace(base.data, anyres=replace(base.data.anyres, grids=grids))
    optimizer = replace(base.optimizer, warmup_steps=base.optimizer.warmup_steps // 2)
    return replace(base, name=name, steps=base.steps // 2, data=data, optimizer=optimizer)


def _nano_sft(crops: int) -> TrainConfig:
    start = Initialize(run=f"runs/nano/{NAME}/stage2_{crops}")
    return replace(nano_sft_single.config(), name=f"nano/{NAME}/sft_{crops}", initialize=start)
