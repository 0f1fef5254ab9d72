"""Fine-tuning on single images: what does the base model answer after 3M questions and conversations?

Paper: section 5.2, table 1 (4B 59.2, 14B 62.0 on average over 12 benchmarks).
Command: xgenmm train experiments/sft_single.py             14B: xgenmm train experiments/sft_single.py:config_14b
         xgenmm train experiments/sft_single.py:example     one epoch of the released code's example mixture
Starts from: runs/4b/stage2.
Hardware: 16 TPU v5p chips or 8 H100 (4B, --for v5p:2x2x4 or h100:8), 64 TPU v5p chips (14B, --for v5p:4x4x4).
Hours: about 10 on the TPU, 11 on the GPUs (4B), 7 (14B), a third of that for the example; estimates, see recipes.py.
Expected (4B single-image): 59 on average over the 12 benchmarks.

Published: 3M public samples, one epoch; by the released script AdamW (0.9, 0.999) at 2e-5, warmup 2000, cosine to 0,
no weight decay, clipping at 1, 64 samples a step, SigLIP frozen. How many samples of which set is not: here all that
the section's sets hold, at most Cambrian's 350,000 of one (mixtures.single_image_3m). Only an example mixture of
816,639 is released, "not for reproducing": `example`.
Differs: at most 12 crops, as the paper says (the script: 4), and packed rows (recipes.fine_tuning). A step holds at
most 64 samples, some 64 by `python tools/step_sizes.py sft_single`. `samples` in metrics.jsonl counts them.
"""

from experiments import mixtures, recipes
from experiments.mixtures import Mixture
from experiments.recipes import B4, B14, Size
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken


def config(size: Size = B4) -> TrainConfig:
    return _one_epoch(mixtures.single_image_3m(), f"{size.name}/sft_single", size)


def config_14b() -> TrainConfig:
    return config(B14)


def example() -> TrainConfig:
    """About 1M samples, as the ablations."""
    return _one_epoch(mixtures.example(), "4b/sft_single_example", B4)


def _one_epoch(mixture: Mixture, name: str, size: Size) -> TrainConfig:
    return TrainConfig(
        name=name,
        model=size.model,
        data=recipes.fine_tuning(mixture),
        objective=NextToken(recipes.CHUNK),
        steps=mixtures.samples_of(mixture) // recipes.BATCH_SAMPLES,
        optimizer=recipes.FINE_TUNING,
        initialize=Initialize(run=size.run("stage2")),
        checkpoint=recipes.CHECKPOINTS,
        watchdog_seconds=recipes.WATCHDOG_SECONDS,
    )
