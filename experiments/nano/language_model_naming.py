"""The last part of the language model's training: to look up the name that stood behind a word before.

Command: make starting-weights, or
xgenmm train experiments/nano/language_model_naming.py --workdir runs/weights/language_model_naming (about 6 minutes
on 2 cores)
A tenth of glossaries taught it nothing of this in 2,800 steps; a third of them, with a fifth of named pictures, does
in some hundred (docs/log.md). The rest keeps what it knows.
"""

from experiments.nano import language_model
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    seen = (
        ("naming", 0.20),
        ("lookups", 0.18),
        ("questions", 0.08),
        ("multi_image", 0.10),
        ("caption", 0.02),
        ("dense", 0.02),
    )
    start = Initialize(run="runs/weights/language_model_finding")
    return language_model.from_words("language_model_naming", seen, steps=500, initialize=start, glossary=0.36)
