"""Stage 1: what does a language model learn about images from 100B multimodal tokens at base resolution?

Paper: section 5.1, figure 3 (mixture), table 1 (few-shot scores of the base model).
Command: xgenmm train experiments/stage1.py             14B: xgenmm train experiments/stage1.py:config_14b
Hardware: 64 TPU v5p chips (4B, --for v5p:4x4x4), 256 (14B, --for v5p:4x8x8).
Hours: about 57 (4B), 45 (14B); estimates, see recipes.py.
Expected, 4-shot of the released 4B base: VQAv2 66.3, TextVQA 54.2, OK-VQA 48.9, COCO 107.6.

Published: the mixture, the budget, 384 px, one view, 128 vision tokens an image, SigLIP frozen (the released code
never trains it). Not published, so ours: rate and schedule (recipes.PRETRAINING), batch, row length, packing, whether
the ratios count samples (ours) or tokens, and whether images are squashed (ours, the released base model's default)
or padded. OCR captions are those without boxes, filler phrases removed (ablations/ocr_filler.py).
"""

from experiments import mixtures, recipes
from experiments.recipes import B4, B14, Size
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken

TOKENS = 100e9


def config(size: Size = B4) -> TrainConfig:
    # 12 crops a row: positions and crops run out together at 11, and with 6 % more, rows are within 1.02 of the fewest
    # possible (`python -m benchmarks.packing`, stage-1 mix): 0.98 of a row's positions and 0.90 of its crops are real.
    data = recipes.pretraining(mixtures.stage1(), recipes.BASE_RESOLUTION, crops=12)
    return TrainConfig(
        name=f"{size.name}/stage1",
        model=size.model,
        data=data,
        objective=NextToken(recipes.CHUNK),
        prompt="few_shot",
        steps=recipes.steps_of(TOKENS),
        optimizer=recipes.PRETRAINING,
        initialize=Initialize(vision=recipes.SIGLIP, decoder=size.decoder),
        checkpoint=recipes.CHECKPOINTS,
        watchdog_seconds=recipes.WATCHDOG_SECONDS,
        held_out=recipes.HELD_OUT,
    )


def config_14b() -> TrainConfig:
    return config(B14)
