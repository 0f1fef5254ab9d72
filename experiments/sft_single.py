"""Fine-tuning on single images: what does the base model answer after 3M questions and conversations?

Paper: section 5.2, table 1 (4B 59.2, 14B 62.0 on average over 12 benchmarks).
Command: xgenmm train experiments/sft_single.py             14B: xgenmm train experiments/sft_single.py:config_14b
         xgenmm train experiments/sft_single.py:one_pass    about one epoch of the mixture that is public
Starts from: runs/4b/stage2.
Hardware: 16 TPU v5p chips or 8 H100 (4B), 64 TPU v5p chips (14B).
Hours: about 11 on the TPU, 12 on the GPUs (4B), 8 (14B), a quarter of that for one_pass; estimates, see recipes.py.
Expected (4B single-image): 59 on average over the 12 benchmarks.

Published: 3M public samples, one epoch; by the released script AdamW (0.9, 0.999) at 2e-5, warmup 2000, cosine to 0,
no weight decay, clipping at 1, 64 samples a step, SigLIP frozen. The 3M samples themselves are not: only an example
mixture of 816,639, "not for reproducing", whose files and counts stand below. `config` draws from it in its
proportions; replace `mixtures.single_image` with your own for the real thing.
Differs: at most 12 crops, as the paper says (the script: 4), and packed rows (recipes.fine_tuning). A step holds at
most 64 samples, some 64 by `python tools/step_sizes.py sft_single`: the 3M / 64 steps see 3.7 passes of what is public.
`samples` in metrics.jsonl counts them.
"""

from dataclasses import replace

from experiments import mixtures, recipes
from experiments.recipes import B4, B14, Size
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken

SAMPLES = 3_000_000


def config(size: Size = B4) -> TrainConfig:
    return TrainConfig(
        name=f"{size.name}/sft_single",
        model=size.model,
        data=recipes.fine_tuning(mixtures.single_image()),
        objective=NextToken(recipes.CHUNK),
        steps=SAMPLES // recipes.BATCH_SAMPLES,
        optimizer=recipes.FINE_TUNING,
        initialize=Initialize(run=size.run("stage2")),
        checkpoint=recipes.CHECKPOINTS,
        watchdog_seconds=recipes.WATCHDOG_SECONDS,
    )


def config_14b() -> TrainConfig:
    return config(B14)


def one_pass() -> TrainConfig:
    """About 1M samples, as the ablations: one pass over the public 816,639, were every row full."""
    return replace(config(), name="4b/sft_single_one_pass", steps=recipes.FINE_TUNED_SAMPLES // recipes.BATCH_SAMPLES)
