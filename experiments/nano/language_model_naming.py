"""The last part of the language model's training: to look up the name that stood behind a word before.

Command: make starting-weights, or
xgenmm train experiments/nano/language_model_naming.py --workdir runs/weights/language_model_naming (about 11 minutes
on 2 cores)
A tenth of glossaries taught it nothing of this in 2,800 steps, a third nothing in 300; half of them, with a quarter of
named pictures, does in some hundred (docs/log.md). The rest keeps what it knows.
"""

from experiments.nano import language_model
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    seen = (
        ("naming", 0.24),
        ("lookups", 0.12),
        ("multi_image", 0.06),
        ("questions", 0.05),
    )
    start = Initialize(run="runs/weights/language_model_finding")
    return language_model.from_words("language_model_naming", seen, steps=900, initialize=start, glossary=0.54)
