"""Preference tuning: does DPO against ungrounded answers, then safety tuning, make the model hallucinate and obey less?

Paper: the first version's post-training section (the later text and the released code have none); released as
instruct-dpo.
Command: xgenmm train experiments/dpo.py               14B: xgenmm train experiments/dpo.py:config_14b
         xgenmm train experiments/dpo.py:safety        then, from runs/4b/dpo
Starts from: runs/4b/sft_multi.
Hardware: 16 TPU v5p chips (4B, --for v5p:2x2x4), 64 (14B, --for v5p:4x4x4).
Hours: about 0.5 (4B), 0.4 (14B); safety a few minutes; estimates, see recipes.py.
Expected: VLGuard attack success from 56.6 to 5.2; fewer hallucinations.

Published: VLFeedback's 80k prompts, the completion of highest mean score against that of lowest, 62.6k pairs, one
epoch with LoRA; a further rejected answer by the model itself when its image is noised; then VLGuard's 2k (2,977
conversations), 3 epochs, with 5k random fine-tuning samples. Not published, so ours: beta 0.1, rate, batch. There is
no LoRA here: the decoder trains whole at a rate for whole models, and `noised_as_well` takes the model's own answers
from JSON lines of {"image", "prompt", "chosen", "rejected"}.
"""

from dataclasses import replace

from experiments import mixtures, recipes
from experiments.recipes import B4, B14, Size
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.dpo import DPO
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.optimizer import OptimizerConfig

PAIRS = 62_600
VLGUARD = 2_977
VLGUARD_EPOCHS = 3
REPLAYED = 5_000
BATCH_PAIRS = 64


def config(size: Size = B4) -> TrainConfig:
    data = DataConfig(
        mixture=mixtures.mixture(mixtures.PAIRS),
        tokenizer=recipes.TOKENIZER,
        # A pair shows its image twice in positions and once in crops: 4 of average size take 8,400 and 22. Some 64
        # pairs a step of at most 64 (`python tools/step_sizes.py dpo`).
        row=RowConfig(length=12_288, crops=36, images=4, vision_tokens=128, segments=8, too_long="drop"),
        anyres=recipes.HIGH_RESOLUTION,
        batch_rows=BATCH_PAIRS // 4,
        loader=recipes.LOADER,
    )
    return TrainConfig(
        name=f"{size.name}/dpo",
        model=size.model,
        data=data,
        objective=DPO(beta=0.1, chunk=recipes.CHUNK),
        steps=PAIRS // BATCH_PAIRS,
        optimizer=OptimizerConfig(peak_lr=5e-7, warmup_steps=100),
        initialize=Initialize(run=size.run("sft_multi")),
        # LoRA touched the language model alone.
        freeze=("vision", "connector"),
        checkpoint=recipes.CHECKPOINTS,
        watchdog_seconds=recipes.WATCHDOG_SECONDS,
    )


def config_14b() -> TrainConfig:
    return config(B14)


def noised_as_well() -> TrainConfig:
    """As many pairs again, whose rejected answer was generated from a noised image."""
    base = config()
    pairs = mixtures.mixture(mixtures.PAIRS_AND_NOISED)
    return replace(base, name="4b/dpo_noised", steps=2 * base.steps, data=replace(base.data, mixture=pairs))


def safety(size: Size = B4) -> TrainConfig:
    guarded = VLGUARD * VLGUARD_EPOCHS
    return TrainConfig(
        name=f"{size.name}/safety",
        model=size.model,
        data=recipes.fine_tuning(mixtures.safety(guarded, REPLAYED)),
        objective=NextToken(recipes.CHUNK),
        steps=(guarded + REPLAYED) // recipes.BATCH_SAMPLES,
        optimizer=OptimizerConfig(peak_lr=5e-6, warmup_steps=20),
        initialize=Initialize(run=size.run("dpo")),
        freeze=("vision", "connector"),
        checkpoint=recipes.CHECKPOINTS,
        watchdog_seconds=recipes.WATCHDOG_SECONDS,
    )
