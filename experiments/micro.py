"""Micro: do nano's stages hold for a model ten times as large, on one GPU?

Paper: none; nano's mixtures and order of stages.
Command: make micro    trains the starting weights and the five stages and leaves runs/micro/report.html; or one by one:
         xgenmm train experiments/micro.py:vision_tower --workdir runs/micro/vision_tower
         then :vision_tower_reading, :vision_tower_small_text, :language_model, :language_model_finding,
         :language_model_naming, :stage1, :stage2, :sft_single, :sft_multi and :dpo, each into runs/micro/NAME
Hardware: one GPU; 16 CPU cores for its 12 loading processes (`--data.loader.workers`).
Hours: scaled for ten minutes on an H100, not measured: it has never run
(docs/log/kernels_gpu.md#not-run-on-any-accelerator). Step counts and rates are scaled from nano.
Expected: unknown.
"""

from dataclasses import replace

from experiments.nano import dpo as nano_dpo
from experiments.nano import recipes
from experiments.nano import sft_multi as nano_sft_multi
from experiments.nano import sft_single as nano_sft_single
from experiments.nano import stage1 as nano_stage1
from experiments.nano import stage2 as nano_stage2
from experiments.nano.starting_weights import language_model as nano_language_model
from experiments.nano.starting_weights import language_model_finding as nano_language_model_finding
from experiments.nano.starting_weights import language_model_naming as nano_language_model_naming
from experiments.nano.starting_weights import vision_tower as nano_vision_tower
from experiments.nano.starting_weights import vision_tower_reading as nano_vision_tower_reading
from experiments.nano.starting_weights import vision_tower_small_text as nano_vision_tower_small_text
from xgenmm_jax.data.rows.config import LoaderConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.nano.connector_start import pooling_start
from xgenmm_jax.training.config import Initialize, TrainConfig

RUNS = "runs/micro"


def config() -> TrainConfig:
    return stage1()


def stage1() -> TrainConfig:
    start = Initialize(
        vision=f"{RUNS}/vision_tower_small_text",
        decoder=f"{RUNS}/language_model_naming",
        connector_start=pooling_start,
    )
    return larger(nano_stage1.config(), steps=1500, peak_lr=3e-3, initialize=start)


def stage2() -> TrainConfig:
    return larger(nano_stage2.config(), steps=700, peak_lr=1.5e-3, initialize=after("stage1"))


def sft_single() -> TrainConfig:
    return larger(nano_sft_single.config(), steps=2000, peak_lr=3e-3, initialize=after("stage2"))


def sft_multi() -> TrainConfig:
    return larger(nano_sft_multi.config(), steps=600, peak_lr=1.5e-3, initialize=after("sft_single"))


def dpo() -> TrainConfig:
    return larger(nano_dpo.config(), steps=150, peak_lr=1e-4, initialize=after("sft_multi"))


def vision_tower() -> TrainConfig:
    """nano's recipe for a tower of 6.4 million parameters."""
    return larger_tower(nano_vision_tower.config(), steps=8_000)


def vision_tower_reading() -> TrainConfig:
    """The second part of the tower's training, on strings that begin their captions."""
    return replace(larger_tower(nano_vision_tower_reading.config(), steps=6_000), initialize=after("vision_tower"))


def vision_tower_small_text() -> TrainConfig:
    """The third part: lines of small text among the images."""
    start = Initialize(vision=f"{RUNS}/vision_tower_reading")
    return replace(larger_tower(nano_vision_tower_small_text.config(), steps=4_000), initialize=start)


def language_model() -> TrainConfig:
    """nano's exercises, images in words."""
    return larger(nano_language_model.config(), steps=2000, peak_lr=3e-3, initialize=Initialize(), rows=64)


def language_model_finding() -> TrainConfig:
    start = after("language_model")
    return larger(nano_language_model_finding.config(), steps=1200, peak_lr=3e-3, initialize=start, rows=64)


def language_model_naming() -> TrainConfig:
    start = after("language_model_finding")
    return larger(nano_language_model_naming.config(), steps=500, peak_lr=3e-3, initialize=start, rows=64)


def after(name: str) -> Initialize:
    return Initialize(run=f"{RUNS}/{name}")


def model() -> VLMConfig:
    tokenizer = Tokenizer.load(recipes.TOKENIZER)
    return replace(sizes.micro(tokenizer.vocab_size, tokenizer.num_text_tokens), dtype="bfloat16")


def larger(nano: TrainConfig, steps: int, peak_lr: float, initialize: Initialize, rows: int = 48) -> TrainConfig:
    """The same stage for the micro model: rows twice as long, as a crop has twice the vision tokens."""
    size = model()
    row = replace(nano.data.row, length=2 * nano.data.row.length, vision_tokens=size.tokens_per_group)
    loader = LoaderConfig(threads=2, workers=12, ahead=4)
    return replace(
        nano,
        name=nano.name.replace("nano/", "micro/"),
        model=size,
        data=replace(nano.data, row=row, batch_rows=rows, window=4096, loader=loader),
        steps=steps,
        optimizer=replace(nano.optimizer, peak_lr=peak_lr, warmup_steps=100),
        initialize=initialize,
    )


def larger_tower(nano: TrainConfig, steps: int) -> TrainConfig:
    """The same training with the larger tower, in bfloat16."""
    size = replace(
        nano.model,
        vision=sizes.MICRO_VISION,
        text=replace(nano.model.text, width=128, hidden=256, layers=2, out_width=sizes.MICRO_VISION.width),
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
