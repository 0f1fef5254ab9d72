"""The language model goes on with what it learns late: what is there and what is not, and which image.

Command: make starting-weights, or
xgenmm train experiments/nano/starting_weights/language_model_finding.py --workdir runs/weights/language_model_finding
(about 13 minutes on 2 cores). `language_model_naming` continues.
"""

from experiments.nano.starting_weights import language_model
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    seen = (
        ("lookups", 0.30),
        ("questions", 0.14),
        ("naming", 0.18),
        ("multi_image", 0.18),
        ("interleaved", 0.06),
        ("caption", 0.04),
        ("dense", 0.02),
        ("ocr", 0.02),
    )
    start = Initialize(run="runs/weights/language_model")
    return language_model.from_words("language_model_finding", seen, steps=1000, initialize=start)
