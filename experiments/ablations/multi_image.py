"""What does fine-tuning on single images cost, and what does fine-tuning on many images give back?

Paper: table 2; it offers the cause as "possibly" and has no row before fine-tuning.
Command: xgenmm train experiments/ablations/multi_image.py:multi_alone    after the stages themselves:
         evaluate runs/4b/stage2 (before), runs/4b/sft_single (single), runs/4b/sft_multi (multi) and multi_alone
         at nano: runs/demo/{stage2,sft_single,sft_multi}, and :nano_multi_alone
Hardware: 16 TPU v5p chips; nano: 2 CPU cores.
Hours: 7 for multi_alone (estimates, experiments/recipes.py), the stages' own as in their files; nano: minutes.
Expected, BLINK / Q-Bench / MuirBench / Mantis-Eval: single 42.9 / 51.9 / 35.0 / 49.3; multi 47.1 / 69.6 / 38.0 / 56.2.

`before`, `single` and `multi` are the stages' own runs: naming them here trains nothing twice. `multi_alone` asks for
what the paper assumes, that single-image questions are mixed in so as not to be lost: the same steps over many
images, none over one.
"""

from dataclasses import replace

from experiments import mixtures, sft_multi, sft_single, stage2
from experiments.nano import sft_multi as nano_sft_multi
from experiments.nano import sft_single as nano_sft_single
from experiments.nano import stage2 as nano_stage2
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import TrainConfig

NAME = "ablations/multi_image"


def config() -> TrainConfig:
    return multi()


def before() -> TrainConfig:
    return stage2.config()


def single() -> TrainConfig:
    return sft_single.config()


def multi() -> TrainConfig:
    return sft_multi.config()


def multi_alone() -> TrainConfig:
    base = multi()
    data = replace(base.data, mixture=mixtures.multi_image(single_share=0.0))
    return replace(base, name=f"4b/{NAME}/multi_alone", data=data)


def nano_before() -> TrainConfig:
    return nano_stage2.config()


def nano_single() -> TrainConfig:
    return nano_sft_single.config()


def nano_multi() -> TrainConfig:
    return nano_sft_multi.config()


def nano_multi_alone() -> TrainConfig:
    base = nano_multi()
    mixture = tuple(
        (source, weight)
        for source, weight in base.data.mixture
        if isinstance(source, Synthetic) and source.family == "multi_image"
    )
    return replace(base, name=f"nano/{NAME}/multi_alone", data=replace(base.data, mixture=mixture))
