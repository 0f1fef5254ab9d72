"""The last part of the language model's training: to look up the name that stood behind a word before.

Command: make starting-weights, or
xgenmm train experiments/nano/starting_weights/language_model_naming.py --workdir runs/weights/language_model_naming
(about 10 minutes on 2 cores)
Half of it is glossaries, a quarter named images; the rest keeps what the model knows. A model that had an eighth of
glossaries from its first step on learned nothing of this, here neither
(docs/log/in_context_naming.md#a-late-half-of-glossaries-teaches-naming).
"""

from experiments.nano.starting_weights import language_model
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    seen = (
        ("naming", 0.22),
        ("lookups", 0.10),
        ("multi_image", 0.04),
        ("questions", 0.04),
    )
    text = (("glossary", 0.50), *language_model.TEXT)
    start = Initialize(run="runs/weights/language_model_finding")
    return language_model.from_words("language_model_naming", seen, steps=800, initialize=start, text=text)
