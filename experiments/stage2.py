"""Stage 2: does continuing at high resolution, on text-rich images, teach the base model to read?

Paper: section 5.1; table 4 (ablations/stage2_resolution.py asks the question itself).
Command: xgenmm train experiments/stage2.py             14B: xgenmm train experiments/stage2.py:config_14b
         xgenmm train experiments/stage2.py:new_at_10   the other reading of the mixture
Starts from: runs/4b/stage1.
Hardware: 64 TPU v5p chips (4B, --for v5p:4x4x4), 256 (14B, --for v5p:4x8x8).
Hours: about 6 (4B), 5 (14B); estimates, see recipes.py.
Expected: 65 to 67 on the OCR benchmarks after fine-tuning, against 64.6 without this stage (table 4).

Published: any resolution with at most 12 crops, longer side at most 1536 px, and the changes to the mixture:
OCR-HD-30M for OCR-200M at 10 percent, IDL at 10, KALE from 25 to 10, DataComp from 10 to 2.5, GROUNDING from 5 to
2.5. These sum to 90, not 100. `config` takes all as relative weights; `new_at_10` holds the two new sources at 10
percent of the total.
Not published, so ours: the budget (a tenth of stage 1), rate and schedule (stage 1's again), the list of grids.
"""

from dataclasses import replace

from experiments import mixtures, recipes
from experiments.recipes import B4, B14, Size
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken

TOKENS = 10e9


def config(size: Size = B4) -> TrainConfig:
    # 24 crops a row: with about 5 crops an image, seven tenths of the positions are vision tokens, and both run out at
    # once, at 23.6 (`python -m benchmarks.packing`, any-res mix): 0.93 of a row's positions and 0.91 of its crops
    # (`python tools/step_sizes.py stage2`).
    data = recipes.pretraining(mixtures.stage2_normalized(), recipes.HIGH_RESOLUTION, crops=24)
    return TrainConfig(
        name=f"{size.name}/stage2",
        model=size.model,
        data=data,
        objective=NextToken(recipes.CHUNK),
        prompt="few_shot",
        steps=recipes.steps_of(TOKENS, recipes.FILL_HIGH_RESOLUTION),
        optimizer=recipes.PRETRAINING,
        initialize=Initialize(run=size.run("stage1")),
        checkpoint=recipes.CHECKPOINTS,
        watchdog_seconds=recipes.WATCHDOG_SECONDS,
        held_out=recipes.HELD_OUT,
    )


def config_14b() -> TrainConfig:
    return config(B14)


def new_at_10() -> TrainConfig:
    base = config()
    return replace(base, name="4b/stage2_new_at_10", data=replace(base.data, mixture=mixtures.stage2_new_at_10()))
