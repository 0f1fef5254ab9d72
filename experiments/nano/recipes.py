"""What the nano stages share: the model, its tokenizer, views and rows.

`make demo` runs stage1, stage2, sft_single, sft_multi and dpo of this folder in that order; vision_tower and
language_model, and what continues them, make the starting weights that stage1 begins with.
"""

from dataclasses import replace
from typing import Literal

from xgenmm_jax.data.anyres import GRIDS_RELEASED, AnyRes
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.source import Mapped, Source
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.nano.sources import Squash, Synthetic
from xgenmm_jax.nano.starting_weights import TOKENIZER
from xgenmm_jax.nano.tasks import DrawnWorld
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.optimizer import OptimizerConfig

ONE_VIEW = AnyRes(grids=(), view_px=64, view_cells=8)
ANY_RES = AnyRes(grids=GRIDS_RELEASED, view_px=64, view_cells=8, single_view_up_to_px=64)


def model() -> VLMConfig:
    tokenizer = Tokenizer.load(TOKENIZER)
    return sizes.nano(tokenizer.vocab_size, tokenizer.num_text_tokens)


def data(
    mixture: tuple[tuple[Source, float], ...], anyres: AnyRes, length: int, crops: int, batch_rows: int
) -> DataConfig:
    """Rows of `length` positions and `crops` crops; 16 vision tokens a crop. Stages of equal rows share a program.

    Without the system prompt, which would take three tenths of a fine-tuning sample's positions (33 of 114).
    """
    return DataConfig(
        mixture=mixture,
        tokenizer=TOKENIZER,
        row=RowConfig(length, crops, images=crops, vision_tokens=model().tokens_per_group, segments=32),
        anyres=anyres,
        batch_rows=batch_rows,
        window=1024,
        chat=ChatStyle(system=None),
    )


def stage(
    name: str,
    data: DataConfig,
    steps: int,
    peak_lr: float,
    initialize: Initialize,
    warmup_steps: int = 50,
    prompt: Literal["chat", "few_shot"] = "chat",
) -> TrainConfig:
    """A stage that predicts the next token with the tower frozen.

    With Muon where the paper has AdamW: together with the pooling start, a third of the images for the same loss
    (docs/log/connector_and_optimizer.md#pooling-start-and-muon).
    """
    return TrainConfig(
        name=f"nano/{name}",
        model=model(),
        data=data,
        objective=NextToken(),
        prompt=prompt,
        steps=steps,
        optimizer=OptimizerConfig(
            algorithm="muon",
            peak_lr=peak_lr,
            warmup_steps=warmup_steps,
            weight_decay=0.01,
            decay_vectors=False,
            betas=(0.9, 0.98),
        ),
        initialize=initialize,
        evaluate=(DrawnWorld(),),
    )


def after(name: str) -> Initialize:
    """The weights that `make demo` left after another stage; `--initialize.run FOLDER` takes others."""
    return Initialize(run=f"runs/demo/{name}")


def single_views(config: Source) -> Source:
    """The same records with every image squashed to the base view."""
    return Mapped(config, Squash(ANY_RES.view_px))


def squashed(config: DataConfig) -> DataConfig:
    return replace(config, anyres=ONE_VIEW)


def family(name: str, length: int = 200_000) -> Synthetic:
    return Synthetic(name, length=length)
