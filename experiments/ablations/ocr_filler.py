"""Does it help to remove filler words such as "the text" from OCR captions?

Paper: section 5.1: the loader removes phrases such as "the text" and keeps the text that was read; "improves
OCR-related benchmarks", without figures.
Command: xgenmm train experiments/ablations/ocr_filler.py:removed    and :kept
         xgenmm train experiments/ablations/ocr_filler.py:nano_removed    and :nano_kept
Hardware: 64 TPU v5p chips; nano: 2 CPU cores.
Hours: 6 each (estimates, experiments/recipes.py); nano: minutes.
Expected: TextVQA of the base model, 4 shots, higher when removed; no figure is published.

Stage 1 with one source exchanged: BLIP3-OCR-200M as `"NY", "BURGER"`, which the released boxes and texts give without
cutting phrases out of OCR output, or as released, `The image contains the text "NY", the text "BURGER"`. The list of
phrases and the budget are not published; 10B tokens as in table 3.
"""

from dataclasses import replace

from experiments import mixtures, recipes, stage1
from experiments.nano import recipes as nano_recipes
from experiments.nano import stage1 as nano_stage1
from xgenmm_jax.data.source import Source
from xgenmm_jax.training.config import TrainConfig

NAME = "ablations/ocr_filler"
TOKENS = 10e9


def config() -> TrainConfig:
    return removed()


def removed() -> TrainConfig:
    return replace(stage1.config(), name=f"4b/{NAME}/removed", steps=recipes.steps_of(TOKENS))


def kept() -> TrainConfig:
    return _exchanged(
        removed(), f"4b/{NAME}/kept", mixtures.files("blip3_ocr_200m"), mixtures.files("blip3_ocr_200m_with_filler")
    )


def nano_removed() -> TrainConfig:
    return replace(nano_stage1.config(), name=f"nano/{NAME}/removed")


def nano_kept() -> TrainConfig:
    ocr = nano_recipes.family("ocr")
    return _exchanged(nano_removed(), f"nano/{NAME}/kept", ocr, replace(ocr, filler=True))


def _exchanged(base: TrainConfig, name: str, old: Source, new: Source) -> TrainConfig:
    mixture = tuple((new if source == old else source, weight) for source, weight in base.data.mixture)
    assert mixture != base.data.mixture, f"{old} is no source of {base.name}"
    return replace(base, name=name, data=replace(base.data, mixture=mixture))
