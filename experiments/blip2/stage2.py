"""BLIP-2's second stage: do queries that were taught to read images speak to a language model that stays as it is?

Paper: arXiv 2301.12597, section 3.3 and 3.4.
Command: xgenmm train experiments/blip2/stage2.py
Hardware: 16 A100-40G in the paper.
Hours: less than 3 days there.
Expected, zero-shot VQAv2 validation of the paper's ViT-g with OPT-2.7B: 53.5; no number with Phi-3 is published.

The paper's: 80k steps of 1,920 images, AdamW at 1e-4 to 5e-5, tower and language model frozen. Ours: Phi-3-mini in
place of OPT and T5, which are not built; rows hold up to 32 captions each, of 32 tokens on average.
"""

from experiments import recipes as shared
from experiments.blip2 import recipes
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.models import sizes
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken

IMAGES = 1920
IMAGES_A_ROW = 32


def config() -> TrainConfig:
    model = sizes.BLIP2
    queries = model.tokens_per_group
    data = DataConfig(
        mixture=recipes.mixture(),
        tokenizer=shared.TOKENIZER,
        # Room for 32 tokens of a caption beside the image's; the paper cuts there, here a row holds longer ones too.
        row=RowConfig(
            length=IMAGES_A_ROW * (queries + 32),
            crops=IMAGES_A_ROW,
            images=IMAGES_A_ROW,
            vision_tokens=queries,
            segments=IMAGES_A_ROW,
            too_long="drop",
        ),
        anyres=AnyRes(grids=(), view_px=model.vision.image_size_px, view_cells=model.vision.grid),
        batch_rows=IMAGES // IMAGES_A_ROW,
        loader=shared.LOADER,
        held_out_one_in=shared.HELD_OUT_ONE_IN,
    )
    return TrainConfig(
        name="blip2/stage2",
        model=model,
        data=data,
        objective=NextToken(shared.CHUNK),
        prompt="few_shot",
        steps=80_000,
        optimizer=recipes.optimizer(recipes.LEAST_LR_STAGE2),
        # The map to the language model is new.
        initialize=Initialize(
            vision=recipes.TOWER,
            connector="runs/blip2/stage1",
            decoder=shared.B4.decoder,
            fresh=("connector/projection",),
        ),
        freeze=("vision", "decoder"),
        checkpoint=shared.CHECKPOINTS,
        watchdog_seconds=shared.WATCHDOG_SECONDS,
        held_out=shared.HELD_OUT,
    )
