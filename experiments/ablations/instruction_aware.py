"""Does the resampler see more when the instruction's tokens join its queries?

Paper: figure 7b: no significant difference.
Command: xgenmm train experiments/ablations/instruction_aware.py:without    and :with_instruction
         both with --at nano too
Starts from: runs/4b/stage1; nano: runs/demo/stage1. The instruction's projection is new and starts from random weights.
Hardware: 16 TPU v5p chips; nano: 2 CPU cores.
Hours: 3 each (estimates, experiments/recipes.py); nano: minutes.
Expected: equal within noise on OCR benchmarks; the figure gives no numbers.

As in the first release: up to 256 of the prompt's token embeddings, projected to the tower's width, stand beside the
128 latents, whose outputs alone are kept. Unlike there, padding is not seen. The size of the fine-tuning set is not
stated; about 1M samples as elsewhere in the section.
"""

from dataclasses import replace

from experiments import recipes, sft_single
from experiments.recipes import Base
from xgenmm_jax.training.config import TrainConfig

NEW_PARAMETERS = ("connector/text_projection1", "connector/text_projection2")


def config() -> TrainConfig:
    return without()


def without(base: Base = sft_single.config) -> TrainConfig:
    return recipes.fine_tuned(base(), "instruction_aware/without")


def with_instruction(base: Base = sft_single.config) -> TrainConfig:
    """Twice as many of the instruction's tokens as there are queries: 256 at 4B, 32 at nano."""
    arm = recipes.arm(without(base), "instruction_aware/with")
    connector = replace(arm.model.connector, instruction_tokens=2 * arm.model.connector.queries)
    return replace(
        arm,
        model=replace(arm.model, connector=connector),
        initialize=replace(arm.initialize, fresh=NEW_PARAMETERS),
    )
