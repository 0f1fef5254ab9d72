"""The language model that nano starts from: the world's language, with images in words, from random weights.

Command: make starting-weights, or
xgenmm train experiments/nano/starting_weights/language_model.py --workdir runs/weights/language_model
(about 23 minutes on 2 cores).
`language_model_finding` continues, then `language_model_naming`.
No pixel is seen: each cell of an image is the sum of the names of what lies in it (`nano/world/symbolic_images.py`).
Text alone taught this model its words and never to look anything up
(docs/log/language_model.md#text-alone-teaches-no-lookup).
"""

from dataclasses import replace

from experiments.nano import recipes
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.nano.sources import Symbolic
from xgenmm_jax.nano.symbolic_images import SymbolicImages
from xgenmm_jax.nano.world.families import Family
from xgenmm_jax.training.config import Initialize, TrainConfig

RECORDS = 2_000_000
TEXT: tuple[tuple[Family, float], ...] = (("text", 0.06), ("text_chat", 0.04))


def config() -> TrainConfig:
    seen = (
        ("lookups", 0.26),
        ("questions", 0.18),
        ("multi_image", 0.14),
        ("interleaved", 0.14),
        ("caption", 0.07),
        ("dense", 0.06),
        ("ocr", 0.03),
        ("grounding", 0.02),
    )
    return from_words("language_model", seen, steps=1800, initialize=Initialize())


def from_words(
    name: str,
    seen: tuple[tuple[Family, float], ...],
    steps: int,
    initialize: Initialize,
    text: tuple[tuple[Family, float], ...] = TEXT,
) -> TrainConfig:
    """A run on families with their images in words, and on `text`, which has none."""
    mixture = (
        *((Mapped(recipes.family(family, RECORDS), Symbolic()), weight) for family, weight in seen),
        *((recipes.family(family, RECORDS), weight) for family, weight in text),
    )
    data = recipes.data(mixture, recipes.ONE_VIEW, length=320, crops=12, batch_rows=12)
    config = recipes.stage(name, data, steps=steps, peak_lr=3e-3, initialize=initialize, warmup_steps=100)
    return replace(config, objective=SymbolicImages(recipes.TOKENIZER), freeze=("vision", "connector"), log_every=50)
