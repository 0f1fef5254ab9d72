"""Does stage 2 help, and at how many crops?

Paper: table 4: the 100B-token stage-1 model; no stage 2, or half the samples of a full one at two grids; then the same
fine-tuning on about 1M samples with at most 13 image patches.
Command: xgenmm train experiments/ablations/stage2_resolution.py:stage2_fewer    then :sft_fewer
         xgenmm train experiments/ablations/stage2_resolution.py:stage2_all      then :sft_all
         xgenmm train experiments/ablations/stage2_resolution.py:sft_none
         all with --at nano too
Starts from: runs/4b/stage1; nano: runs/demo/stage1.
Hardware: 64 TPU v5p chips for stage 2, 16 for fine-tuning; nano: 2 CPU cores.
Hours: 3 a stage 2, 3 a fine-tuning (estimates, experiments/recipes.py); nano: minutes.
Expected, OCR / general VQA: none 64.6 / 63.5; up to 2x2, 1x3, 3x1 65.3 / 63.2; up to 3x4, 4x3 67.2 / 63.3.

Fine-tuning always sees 12 crops and the global view, so the grid of stage 2 is all that differs. At nano pages have 2x2
crops or strips of 1x3, so the smaller grid is 1x2 and 2x1, and half of the stage is as many steps as that says.
"""

from dataclasses import replace

from experiments import recipes, sft_single, stage2
from experiments.recipes import Base
from xgenmm_jax.data.anyres import GRIDS_12, GRIDS_RELEASED, Grid
from xgenmm_jax.training.config import Initialize, TrainConfig

Grids = tuple[Grid, ...]
FEWER: dict[Grids, Grids] = {GRIDS_12: GRIDS_RELEASED, GRIDS_RELEASED: ((1, 2), (2, 1))}
"""From the grids of a stage 2, the paper's 12 crops or nano's 4, to those of 4 and of 2."""


def config() -> TrainConfig:
    return stage2_all()


def stage2_fewer(base: Base = stage2.config) -> TrainConfig:
    whole = base()
    return _half(whole, FEWER[whole.data.anyres.grids])


def stage2_all(base: Base = stage2.config) -> TrainConfig:
    whole = base()
    return _half(whole, whole.data.anyres.grids)


def sft_none(base: Base = sft_single.config) -> TrainConfig:
    return recipes.fine_tuned(base(), "stage2_resolution/sft_none")


def sft_fewer(base: Base = sft_single.config, before: Base = stage2.config) -> TrainConfig:
    return _fine_tuned(base(), stage2_fewer(before))


def sft_all(base: Base = sft_single.config, before: Base = stage2.config) -> TrainConfig:
    return _fine_tuned(base(), stage2_all(before))


def _half(base: TrainConfig, grids: Grids) -> TrainConfig:
    """Half of the stage at some grids, named by their crops: stage2_4."""
    arm = recipes.arm(base, f"stage2_resolution/stage2_{max(rows * columns for rows, columns in grids)}")
    data = replace(base.data, anyres=replace(base.data.anyres, grids=grids))
    optimizer = replace(base.optimizer, warmup_steps=base.optimizer.warmup_steps // 2)
    return replace(arm, steps=base.steps // 2, data=data, optimizer=optimizer)


def _fine_tuned(base: TrainConfig, stage2_arm: TrainConfig) -> TrainConfig:
    arm = recipes.fine_tuned(base, f"stage2_resolution/sft_{stage2_arm.name.rpartition('_')[2]}")
    return replace(arm, initialize=Initialize(run=f"runs/{stage2_arm.name}"))
