"""What does fine-tuning on single images cost, and what does fine-tuning on many images give back?

Paper: table 2; it offers the cause as "possibly" and has no row before fine-tuning.
Command: xgenmm train experiments/ablations/multi_image.py:multi_alone    after the stages themselves:
         evaluate runs/4b/stage2 (before), runs/4b/sft_single (single), runs/4b/sft_multi (multi) and multi_alone
         at nano: runs/demo/{stage2,sft_single,sft_multi}, and :multi_alone --at nano
Hardware: 16 TPU v5p chips; nano: 2 CPU cores.
Hours: 7 for multi_alone (estimates, experiments/recipes.py), the stages' own as in their files; nano: minutes.
Expected, BLINK / Q-Bench / MuirBench / Mantis-Eval: single 42.9 / 51.9 / 35.0 / 49.3; multi 47.1 / 69.6 / 38.0 / 56.2.

`before`, `single` and `multi` are the stages' own runs: naming them here trains nothing twice. `multi_alone` asks for
what the paper assumes, that single-image questions are mixed in so as not to be lost: the same steps over many
images, none over one.
"""

from dataclasses import replace

from experiments import mixtures, recipes, sft_multi, sft_single, stage2
from experiments.recipes import Base
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import TrainConfig

MULTI_IMAGE = tuple(mixtures.source(name) for name in mixtures.MULTI_IMAGE)


def config() -> TrainConfig:
    return multi()


def before(base: Base = stage2.config) -> TrainConfig:
    return base()


def single(base: Base = sft_single.config) -> TrainConfig:
    return base()


def multi(base: Base = sft_multi.config) -> TrainConfig:
    return base()


def multi_alone(base: Base = sft_multi.config) -> TrainConfig:
    whole = base()
    mixture = tuple(
        (source, weight)
        for source, weight in whole.data.mixture
        if source in MULTI_IMAGE or (isinstance(source, Synthetic) and source.family == "multi_image")
    )
    return replace(recipes.arm(whole, "multi_image/multi_alone"), data=replace(whole.data, mixture=mixture))
