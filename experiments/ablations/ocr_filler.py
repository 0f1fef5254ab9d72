"""Does it help to remove filler words such as "the text" from OCR captions?

Paper: section 5.1: the loader removes phrases such as "the text" and keeps the text that was read; "improves
OCR-related benchmarks", without figures.
Command: xgenmm train experiments/ablations/ocr_filler.py:removed    and :kept
         both with --at nano too
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
from experiments.recipes import Base
from xgenmm_jax.training.config import TrainConfig

TOKENS = 10e9
OCR, NANO_OCR = mixtures.source("blip3_ocr_200m"), nano_recipes.family("ocr")
WITH_FILLER = {
    OCR: replace(OCR, reader=replace(OCR.reader, filler=True), name=f"{OCR.name}_with_filler"),
    NANO_OCR: replace(NANO_OCR, filler=True),
}


def config() -> TrainConfig:
    return removed()


def removed(base: Base = stage1.config) -> TrainConfig:
    return recipes.at_most(recipes.arm(base(), "ocr_filler/removed"), recipes.steps_of(TOKENS))


def kept(base: Base = stage1.config) -> TrainConfig:
    arm = recipes.arm(removed(base), "ocr_filler/kept")
    mixture = tuple((WITH_FILLER.get(source, source), weight) for source, weight in arm.data.mixture)
    assert mixture != arm.data.mixture, f"{base().name} has no source of OCR captions"
    return replace(arm, data=replace(arm.data, mixture=mixture))
