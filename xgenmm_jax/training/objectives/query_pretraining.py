"""BLIP-2's first stage: queries learn to compare, to match and to tell images and texts, the tower frozen.

Source: docs/reference/blip2.md#losses.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.text import caption_tokens
from xgenmm_jax.models import blip2, dropout
from xgenmm_jax.models.blip2 import Blip2, Blip2Config
from xgenmm_jax.models.blip2_flops import stage1_flops
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.training.objectives import query_losses
from xgenmm_jax.training.objectives.base import Counts, Objective, Params, Sum
from xgenmm_jax.training.objectives.caption_rows import CaptionBatch, CaptionData, caption_batches
from xgenmm_jax.training.objectives.query_losses import Contrast, Negatives

LEAST_PAIRS = 2
DROPOUT = 1
"""Folded into the step's key for dropout; negatives are drawn from the micro-batch's key itself."""


class Losses(NamedTuple):
    """What each loss averages, and what it is of. `weight`: 0 where there is no item."""

    contrast: Float[Array, " n"]
    matching: Float[Array, " 3n"]
    """Of the pairs, then of each text with another image, then of each image with another text."""
    matching_weight: Bool[Array, " 3n"]
    matching_logits: Float[Array, "3n 2"]
    caption: Float[Array, "n T"]
    caption_weight: Bool[Array, "n T"]
    logits: Contrast


Draw = Callable[[Contrast, Bool[Array, "n n"], Bool[Array, " n"]], Negatives]


@dataclass(frozen=True)
class QueryPretraining(Objective):
    """Contrast (ITC), matching with hard negatives (ITM) and captions (ITG), each a mean, added with these weights.

    All is over the images of a micro-batch: accumulation makes contrast easier and negatives softer, not the same.
    The mean over tokens is the batch's, where the official code takes one of each process and averages these.

    cuts_gradients: as the official code, whose gathered vectors carry no gradient (`query_losses.contrast_logits`).
    finds_same: pairs of one image, or of one text, are told and are no negatives of each other, as in the official
    fine-tuning; False: as in its pre-training, every other pair is one.
    """

    contrast_weight: float = 1.0
    matching_weight: float = 1.0
    caption_weight: float = 1.0
    cuts_gradients: bool = True
    finds_same: bool = True
    smoothing: float = field(default=query_losses.SMOOTHING)

    def __post_init__(self):
        weights = (self.contrast_weight, self.matching_weight, self.caption_weight)
        if min(weights) < 0 or not any(weights) or not 0 <= self.smoothing < 1:
            raise ValueError(
                f"objective: got weights {weights} and smoothing {self.smoothing}; wanted weights of 0 or more, one of "
                "them above 0, and a smoothing from 0 to below 1."
            )

    def check(self, model: Blip2Config, data: CaptionData) -> None:
        """Raises ValueError where there are no negatives, or the model lacks what the losses need."""
        if not isinstance(model, Blip2Config):
            raise ValueError(f"model: got a {type(model).__name__}, wanted a Blip2Config, BLIP-2's first stage.")
        if not model.language_head:
            raise ValueError(
                "model: its file held neither temperature nor language head (transformers' do not), so the first stage "
                "cannot go on from it; evaluate it, or take LAVIS' file."
            )
        if data.image_size_px != model.vision.image_size_px:
            raise ValueError(
                f"data.image_size_px: got {data.image_size_px}, the tower takes {model.vision.image_size_px}; make "
                "them equal."
            )
        if data.tokens > model.text.max_positions:
            raise ValueError(
                f"data.tokens: got {data.tokens}, the model has {model.text.max_positions} positions; lower it."
            )

    def check_micro_batch(self, rows: int) -> None:
        """Raises ValueError for one pair, which has no negative."""
        if rows < LEAST_PAIRS:
            raise ValueError(
                f"data.batch_rows: got micro-batches of {rows} pair, which has no negative; make them at least "
                f"{LEAST_PAIRS} pairs (data.batch_rows over accumulation)."
            )

    def init(self, model: Blip2Config, key: Array) -> Params:
        return blip2.initialize(model, key)

    def shared(self, rows: CaptionBatch, key: Array) -> dict[str, Array]:
        return {"step_key": key}

    def loss(
        self,
        model: Blip2Config,
        params: Params,
        reference: Params | None,
        rows: CaptionBatch,
        key: Array,
        freeze: tuple[str, ...],
        step_key: Array | None = None,
    ) -> tuple[Sum, dict[str, Sum]]:
        """Raises ValueError for rows of one pair, which has no negative."""
        self.check_micro_batch(rows.pixels.shape[0])
        draw = functools.partial(query_losses.draw_negatives, key)
        of_rows = jax.random.fold_in(key if step_key is None else step_key, DROPOUT)
        losses = self.losses(model, params, rows, freeze, draw, of_rows)
        is_pair = rows.valid[:, 0]
        pairs = jnp.sum(is_pair).astype(jnp.float32)
        contrast = Sum(jnp.sum(losses.contrast), pairs)
        matching = _sum(losses.matching, losses.matching_weight)
        caption = _sum(losses.caption, losses.caption_weight)
        # Each is a mean; times pairs, which the sum is over.
        total = self.contrast_weight * contrast.total
        total += self.matching_weight * pairs * _mean(matching) + self.caption_weight * pairs * _mean(caption)
        is_match = jnp.arange(3 * len(is_pair)) < len(is_pair)
        right = (losses.matching_logits[:, 1] > losses.matching_logits[:, 0]) == is_match
        nearest = jnp.argmax(jnp.where(is_pair[None], losses.logits.to_text, -jnp.inf), axis=1)
        is_nearest = jnp.where(is_pair, nearest == jnp.arange(len(is_pair)), False)
        return Sum(total, pairs), {
            "contrast": contrast,
            "matching": matching,
            "caption": caption,
            "matched": _sum(right.astype(jnp.float32), losses.matching_weight),
            "retrieval": Sum(jnp.sum(is_nearest).astype(jnp.float32), pairs),
            "captions_cut": Sum(jnp.sum(rows.is_cut).astype(jnp.float32), pairs),
        }

    def losses(
        self,
        model: Blip2Config,
        params: Params,
        rows: CaptionBatch,
        freeze: tuple[str, ...],
        draw: Draw,
        dropout_key: Array | None = None,
    ) -> Losses:
        """All losses item by item. draw: the negatives, from logits, `same` and which rows are pairs.

        dropout_key: None: without; each image with its text has draws of its own (`models/dropout.py`).
        """
        is_pair = rows.valid[:, 0]
        same = jnp.eye(len(is_pair), dtype=bool)
        if self.finds_same:
            same = query_losses.same_pairs(rows.image_ids, rows.token_ids, is_pair)

        def run(module: Blip2) -> Losses:
            features = module.encode(rows.pixels)
            if "vision" in freeze:
                features = jax.lax.stop_gradient(features)
            image_ids, text_ids = rows.image_ids, dropout.checksums(rows.token_ids)
            pair_ids = dropout.joined(image_ids, text_ids)
            seen = module.see(features, pair_ids)
            texts = module.text_vectors(rows.token_ids, rows.valid, pair_ids)
            logits = query_losses.contrast_logits(seen.vectors, texts, module.temperature, self.cuts_gradients)
            negatives = draw(logits, same, is_pair)
            # Pairs; each text with a negative image; each image with a negative text.
            images = jnp.concatenate([seen.features, seen.features[negatives.image_of_text], seen.features])
            token_ids, valid = (
                jnp.concatenate([of, of, of[negatives.text_of_image]]) for of in (rows.token_ids, rows.valid)
            )
            of_images = jnp.concatenate([image_ids, image_ids[negatives.image_of_text], image_ids])
            of_texts = jnp.concatenate([text_ids, text_ids, text_ids[negatives.text_of_image]])
            matched = module.match(images, token_ids, valid, dropout.joined(of_images, of_texts))
            is_match = jnp.arange(3 * len(is_pair)) < len(is_pair)
            has = query_losses.has_negative
            weight = jnp.concatenate([is_pair, has(same.T, is_pair), has(same, is_pair)])
            words = module.caption_logits(seen.cache, rows.token_ids, rows.valid, pair_ids)
            return Losses(
                query_losses.contrast_losses(logits, same, is_pair, self.smoothing),
                query_losses.matching_losses(matched, is_match),
                weight,
                matched,
                query_losses.caption_losses(words, rows.token_ids, rows.valid, self.smoothing),
                jnp.pad(rows.valid[:, 1:], ((0, 0), (1, 0))),
                logits,
            )

        streams = {} if dropout_key is None else {dropout.STREAM: dropout_key}
        return Blip2(model).apply(blip2.variables(params), method=run, rngs=streams)

    def batches(
        self, model: Blip2Config, data: CaptionData, seed: int, state: State, host_index: int, host_count: int
    ) -> Iterator[tuple[CaptionBatch, list[str], State]]:
        """Raises ValueError where the Q-Former's table is not the tokenizer's with `[CLS]` and `[DEC]` behind it."""
        words, rows = caption_tokens.for_queries(data.tokenizer), model.text.vocab_size
        if rows != words.rows:
            raise ValueError(
                f"model.text.vocab_size: got {rows} for a tokenizer of {words.ids} ids, wanted {words.rows}, with "
                "[CLS] and [DEC]."
            )
        return caption_batches(data, words, seed, state, host_index, host_count)

    def count(self, rows: CaptionBatch) -> Counts:
        valid = np.asarray(rows.valid)
        return Counts(int(valid[:, 0].sum()), int(valid.sum()), valid.size)

    def flops(self, model: Blip2Config, rows: CaptionBatch, freeze: tuple[str, ...], lora: LoRA | None = None) -> float:
        return stage1_flops(model, np.sum(rows.valid, axis=1), "vision" not in freeze)


def _sum(values: Float[Array, "*n"], weight: Bool[Array, "*n"]) -> Sum:
    return Sum(jnp.sum(jnp.where(weight, values, 0.0)), jnp.sum(weight).astype(jnp.float32))


def _mean(one: Sum) -> Float[Array, ""]:
    return one.total / jnp.maximum(one.weight, 1)

