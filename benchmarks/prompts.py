"""Prompts for decoding: one image each, random text of lengths that differ a little."""

from dataclasses import replace

import numpy as np

from benchmarks.workloads import random_image, text_ids
from experiments.nano import recipes as nano_recipes
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.blip3 import VLMConfig


def tokenizer_of(model: VLMConfig) -> Tokenizer:
    """The small tokenizer; larger models take its ids too, and the others as random text."""
    return Tokenizer.load(nano_recipes.TOKENIZER)


def anyres_of(model: VLMConfig) -> AnyRes:
    """The global view alone."""
    return replace(nano_recipes.ONE_VIEW, view_px=model.vision.image_size_px, view_cells=model.vision.grid)


def decoding_prompts(model: VLMConfig, rows: int, tokens: int) -> list[Prompt]:
    """`<image>` and text, together up to `tokens` positions once the image is expanded; the first is the longest.

    Raises ValueError where the image alone takes them all.
    """
    tokenizer, rng = tokenizer_of(model), np.random.default_rng(0)
    text = tokens - model.tokens_per_group
    if text < 2:
        raise ValueError(
            f"--prompt-tokens: got {tokens}, the image alone takes {model.tokens_per_group}; give "
            f"{model.tokens_per_group + 2} or more."
        )
    size = (model.vision.image_size_px,) * 2
    prompts = []
    for row in range(rows):
        length = max(2, text - row % 8)
        ids = text_ids(rng, length, model.decoder.num_text_tokens, tokenizer)
        ids = np.where(ids == tokenizer.pad_id, 3, ids)
        prompts.append(Prompt((tokenizer.image_id, *ids.tolist()), (random_image(size, row),)))
    return prompts
