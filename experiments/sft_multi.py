"""Fine-tuning on many images: can a model that answers about one image compare several, and keep what it knew?

Paper: section 5.2, table 2 (BLINK, Q-Bench, MuirBench, Mantis-Eval).
Command: xgenmm train experiments/sft_multi.py             14B: xgenmm train experiments/sft_multi.py:config_14b
Starts from: runs/4b/sft_single.
Hardware: 16 TPU v5p chips (4B, --for v5p:2x2x4), 64 (14B, --for v5p:4x4x4).
Hours: about 7 (4B), 6 (14B); estimates, see recipes.py.
Expected (4B): BLINK 47.1, Q-Bench 69.6, MuirBench 38.0, Mantis-Eval 56.2; before this stage 42.9, 51.9, 35.0, 49.3.

Published: Mantis and MMDU mixed with a subset of the single-image questions, any resolution as before.
Not published, so ours: the ratio (half single-image, half multi-image by what the two hold), the length (one pass
over Mantis and MMDU at 64 samples a step; it holds some 64, `python tools/step_sizes.py sft_multi`), the
schedule (the stage before's). As in the released code, conversations of more than 4 images are left out.
"""

from experiments import mixtures, recipes
from experiments.recipes import B4, B14, Size
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken


def config(size: Size = B4) -> TrainConfig:
    return TrainConfig(
        name=f"{size.name}/sft_multi",
        model=size.model,
        # Four images of 13 crops are 52 crops and 6656 vision tokens: such a conversation fills a row alone.
        data=recipes.fine_tuning(mixtures.multi_image(), length=8192, crops=56),
        objective=NextToken(recipes.CHUNK),
        steps=2 * sum(mixtures.MULTI_IMAGE.values()) // recipes.BATCH_SAMPLES,
        optimizer=recipes.FINE_TUNING,
        initialize=Initialize(run=size.run("sft_single")),
        checkpoint=recipes.CHECKPOINTS,
        watchdog_seconds=recipes.WATCHDOG_SECONDS,
    )


def config_14b() -> TrainConfig:
    return config(B14)
