"""BLIP3-o's pre-training: can a frozen BLIP-3 draw what it reads, as features of its own image tower?

Paper: BLIP3-o (arXiv 2505.09568), sections on pre-training; design b, sequential training.
Command: xgenmm train experiments/blip3o/pretrain.py             14B: xgenmm train experiments/blip3o/pretrain.py:b14
Starts from: runs/4b/blip3o/pixel_decoder, which has the understanding model of runs/4b/sft_multi.
Hardware: 128 TPU v5p chips (--for v5p:4x4x8), which take 256 rows a step, in 112,500 steps.
Hours: about 3 (4B), 9 (14B); estimates, see recipes.py. Published: 10 days of 32 H200 (4B).
Expected: of the released 4B (Qwen2.5-VL-3B, EVA-CLIP-E), after tuning, GenEval 0.81, DPG-Bench 79.36, WISE 0.50;
before tuning far lower (BLIP3o-NEXT: GenEval 0.31, then 0.81).

Published: the data and their sizes, which are the mixture's weights, 150,000 steps of 512 images, 1e-4 to 1e-5 by a
cosine, warm-up over 0.003 of the steps, AdamW without decay, clipping at 1, rows of 512, a condition dropped with 0.1.
Not published, so ours: target, moving average and packing (recipes.py). 192 rows hold some 505 images.
`eva` draws features of EVA-CLIP-E, as the released weights do: bring the tower with `xgenmm convert` to weights/blip3o.
"""

from dataclasses import replace

from experiments import mixtures, recipes
from experiments.blip3o import recipes as drawing
from experiments.recipes import B4, B14, Size
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3o import UNDERSTANDING, DrawingConfig, EVATarget
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.flow_matching import FlowMatching

STEPS = 150_000
ROWS = 192


def config(size: Size = B4) -> TrainConfig:
    return TrainConfig(
        name=f"{size.name}/blip3o/pretrain",
        model=drawing.model(size),
        data=drawing.rows(mixtures.mixture(mixtures.DRAWING), ROWS),
        objective=FlowMatching(drop=0.1),
        steps=STEPS,
        optimizer=drawing.optimizer(STEPS, final_fraction=0.1),
        initialize=Initialize(run=size.run("blip3o/pixel_decoder")),
        freeze=(*UNDERSTANDING, "target", "pixels"),
        average_decay=drawing.AVERAGE_DECAY,
        checkpoint=recipes.CHECKPOINTS,
        watchdog_seconds=recipes.WATCHDOG_SECONDS,
    )


def b14() -> TrainConfig:
    return config(B14)


def eva() -> TrainConfig:
    """EVA-CLIP-E's features, from all of which the released decoders make pixels; ours would be trained for it."""
    base = config()
    tower = sizes.EVA_E
    dit = replace(sizes.BLIP3O_4B, channels=tower.width, context_width=base.model.decoder.width)
    model = replace(base.model, drawing=DrawingConfig(head=dit, target=EVATarget(tower, drawing.GRID), pixels=None))
    understanding = {part: B4.run("sft_multi") for part in UNDERSTANDING}
    return replace(
        base,
        name="4b/blip3o/pretrain_eva",
        model=model,
        data=replace(base.data, target_px=tower.image_size_px),
        initialize=Initialize(run="weights/blip3o", **understanding, fresh=("drawing", "target/mean", "target/std")),
        freeze=(*UNDERSTANDING, "target"),
    )
