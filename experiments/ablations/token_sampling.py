"""Fixed resolution, fixed sampling over all crops, or a resampler for each crop?

Paper: figure 7a, OCR benchmarks after fine-tuning from the base-resolution stage-1 model.
Command: xgenmm train experiments/ablations/token_sampling.py:crops    and :fixed_sampling, :fixed_resolution, :strips
         all with --at nano too
Starts from: runs/4b/stage1; nano: runs/demo/stage1.
Hardware: 16 TPU v5p chips; nano: 2 CPU cores.
Hours: 3 each, static shapes cost the same (estimates, experiments/recipes.py); nano: minutes.
Expected: each crop by itself above fixed sampling above fixed resolution; the figure gives no numbers.

Fixed resolution keeps the aspect ratio: one view, padded to a square. Fixed sampling reads all crops of an image
into the tokens of one. `strips` is what the released weights did in the place of crops. The size of the fine-tuning
set is not stated; about 1M samples as elsewhere in the section.
"""

from dataclasses import replace

from experiments import recipes, sft_single
from experiments.recipes import Base
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    return crops()


def crops(base: Base = sft_single.config) -> TrainConfig:
    return recipes.fine_tuned(base(), "token_sampling/crops")


def strips(base: Base = sft_single.config) -> TrainConfig:
    return _sampled(crops(base), TokenSampling.STRIPS)


def fixed_sampling(base: Base = sft_single.config) -> TrainConfig:
    return _sampled(crops(base), TokenSampling.FIXED_SAMPLING)


def fixed_resolution(base: Base = sft_single.config) -> TrainConfig:
    return _one_view(crops(base))


def _sampled(base: TrainConfig, token_sampling: TokenSampling) -> TrainConfig:
    # With fixed sampling an image's tokens are those of one group, however many crops it has.
    row = replace(
        base.data.row, vision_tokens_per="image" if token_sampling is TokenSampling.FIXED_SAMPLING else "crop"
    )
    return replace(
        base,
        name=f"{base.name.removesuffix('crops')}{token_sampling.value}",
        model=replace(base.model, token_sampling=token_sampling),
        data=replace(base.data, row=row),
    )


def _one_view(base: TrainConfig) -> TrainConfig:
    one = _sampled(base, TokenSampling.FIXED_RESOLUTION)
    anyres = replace(one.data.anyres, grids=(), global_view="pad")
    return replace(one, data=replace(one.data, anyres=anyres))
