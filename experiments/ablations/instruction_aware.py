"""Does the resampler see more when the instruction's tokens join its queries?

Paper: figure 7b: no significant difference.
Command: xgenmm train experiments/ablations/instruction_aware.py:without    and :with_instruction
         xgenmm train experiments/ablations/instruction_aware.py:nano_without    and :nano_with_instruction
Starts from: runs/4b/stage1; nano: runs/demo/stage1. The instruction's projection is new and starts from random weights.
Hardware: 16 TPU v5p chips; nano: 2 CPU cores.
Hours: 3 each (estimates, experiments/recipes.py); nano: minutes.
Expected: equal within noise on OCR benchmarks; the figure gives no numbers.

As in the first release: up to 256 of the prompt's token embeddings, projected to the tower's width, stand beside the
128 latents, whose outputs alone are kept. Unlike there, padding is not seen. The size of the fine-tuning set is not
stated; about 1M samples as elsewhere in the section.
"""

from dataclasses import replace

from experiments import sft_single
from experiments.nano import recipes as nano_recipes
from experiments.nano import sft_single as nano_sft_single
from xgenmm_jax.training.config import TrainConfig

NAME = "ablations/instruction_aware"
TOKENS = 256
NANO_TOKENS = 32
NEW_PARAMETERS = ("connector/text_projection1", "connector/text_projection2")


def config() -> TrainConfig:
    return without()


def without() -> TrainConfig:
    return sft_single.short(sft_single.config(), f"4b/{NAME}/without", "runs/4b/stage1")


def with_instruction() -> TrainConfig:
    return _aware(without(), f"4b/{NAME}/with", TOKENS)


def nano_without() -> TrainConfig:
    return replace(nano_sft_single.config(), name=f"nano/{NAME}/without", initialize=nano_recipes.after("stage1"))


def nano_with_instruction() -> TrainConfig:
    return _aware(nano_without(), f"nano/{NAME}/with", NANO_TOKENS)


def _aware(base: TrainConfig, name: str, tokens: int) -> TrainConfig:
    connector = replace(base.model.connector, instruction_tokens=tokens)
    return replace(
        base,
        name=name,
        model=replace(base.model, connector=connector),
        initialize=replace(base.initialize, fresh=NEW_PARAMETERS),
    )
