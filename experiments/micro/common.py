"""What the micro stages share: nano's mixtures and order of stages, ten times the model, for one GPU.

    make micro

trains the starting weights and the five stages and leaves runs/micro/report.html. Step counts and rates are scaled
from nano, for ten minutes on an H100: they were not measured, since it has never run
(docs/log/kernels_gpu.md#not-run-on-any-accelerator).
"""

from dataclasses import replace

from experiments.nano import common
from xgenmm_jax.data.rows.config import LoaderConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.training.config import Initialize, TrainConfig

RUNS = "runs/micro"


def model() -> VLMConfig:
    tokenizer = Tokenizer.load(common.TOKENIZER)
    return replace(sizes.micro(tokenizer.vocab_size, tokenizer.num_text_tokens), dtype="bfloat16")


def larger(nano: TrainConfig, steps: int, peak_lr: float, initialize: Initialize, rows: int = 48) -> TrainConfig:
    """The same stage for the micro model: rows twice as long, as a crop has twice the vision tokens.

    12 loading processes suit a machine of 16 cores: `--data.loader.workers`.
    """
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


def after(name: str) -> Initialize:
    return Initialize(run=f"{RUNS}/{name}")
