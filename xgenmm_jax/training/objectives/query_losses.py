"""BLIP-2's three losses as plain functions of arrays, each as what it averages.

Rows are pairs of an image and a text. `same` is True where text m belongs to image n: on the diagonal, and where an
image stands in the batch under several texts.

Source: docs/reference/blip2.md#losses.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, UInt32

from xgenmm_jax.models.blip2 import similarity
from xgenmm_jax.training.objectives.losses import same_captions

SMOOTHING = 0.1
"""Of the targets of contrast and of captions."""
NEVER = -10000.0
"""Logit of what is no negative."""


class Contrast(NamedTuple):
    """Logits over the texts of the batch for each image, and over its images for each text."""

    to_text: Float[Array, "n n"]
    to_image: Float[Array, "n n"]


class Negatives(NamedTuple):
    """Of each text an image that is not its own, of each image such a text: by row."""

    image_of_text: Int32[Array, " n"]
    text_of_image: Int32[Array, " n"]


def same_pairs(
    image_ids: UInt32[Array, " n"], token_ids: Int32[Array, "n T"], is_pair: Bool[Array, " n"]
) -> Bool[Array, "n n"]:
    """`same` of rows whose images, or whose texts, are equal. is_pair: False for a row that could not be read."""
    equal = (image_ids[:, None] == image_ids[None]) | same_captions(token_ids)
    return (equal & is_pair[:, None] & is_pair[None]) | jnp.eye(len(is_pair), dtype=bool)


def contrast_logits(
    images: Float[Array, "n Q F"], texts: Float[Array, "n F"], temperature: Float[Array, ""], cuts: bool
) -> Contrast:
    """Cosine of the nearest query over the temperature. Vectors have length 1.

    cuts: what is compared with carries no gradient, as in the official code, which gathers it from all processes: then
    images alone learn from the way to texts, and texts alone from the way to images.
    """
    fixed = jax.lax.stop_gradient if cuts else lambda x: x
    to_text = similarity(images, fixed(texts)) / temperature
    return Contrast(to_text, similarity(fixed(images), texts).T / temperature)


def contrast_losses(
    logits: Contrast, same: Bool[Array, "n n"], is_pair: Bool[Array, " n"], smoothing: float = SMOOTHING
) -> Float[Array, " n"]:
    """Of each row, the mean of both directions; targets are uniform over `same`. 0 where there is no pair."""
    both = _contrast(logits.to_text, same, is_pair, smoothing) + _contrast(logits.to_image, same.T, is_pair, smoothing)
    return jnp.where(is_pair, both / 2, 0.0)


def _contrast(
    logits: Float[Array, "n n"], same: Bool[Array, "n n"], is_pair: Bool[Array, " n"], smoothing: float
) -> Float[Array, " n"]:
    pairs = jnp.maximum(jnp.sum(is_pair), 1)
    uniform = is_pair.astype(jnp.float32)[None] / pairs
    targets = (1 - smoothing) * same / jnp.sum(same, axis=1, keepdims=True) + smoothing * uniform
    log_probs = jax.nn.log_softmax(jnp.where(is_pair[None], logits, jnp.finfo(jnp.float32).min), axis=1)
    return -jnp.sum(jnp.where(is_pair[None], targets * log_probs, 0.0), axis=1)


def negative_logits(
    logits: Float[Array, "n n"], same: Bool[Array, "n n"], is_pair: Bool[Array, " n"]
) -> Float[Array, "n n"]:
    """Of which a negative is drawn for each row, without gradient: the likelier it seems a pair, the likelier drawn."""
    return jax.lax.stop_gradient(jnp.where(same | ~is_pair[None], NEVER, logits))


def draw_negatives(
    key: Key[Array, ""], logits: Contrast, same: Bool[Array, "n n"], is_pair: Bool[Array, " n"]
) -> Negatives:
    """A hard negative of each text and of each image. Ignore those of rows of which `has_negative` is False."""
    of_text, of_image = jax.random.split(key)
    images = jax.random.categorical(of_text, negative_logits(logits.to_image, same.T, is_pair), axis=1)
    texts = jax.random.categorical(of_image, negative_logits(logits.to_text, same, is_pair), axis=1)
    return Negatives(images.astype(jnp.int32), texts.astype(jnp.int32))


def has_negative(same: Bool[Array, "n n"], is_pair: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """Whether anything in the batch is no pair with a row's image (or, transposed, text)."""
    return is_pair & jnp.any(~same & is_pair[None], axis=1)


def matching_losses(logits: Float[Array, "n 2"], is_match: Bool[Array, " n"]) -> Float[Array, " n"]:
    """Cross entropy of (no pair, pair)."""
    log_probs = jax.nn.log_softmax(logits, axis=1)
    return -jnp.where(is_match, log_probs[:, 1], log_probs[:, 0])


def caption_losses(
    logits: Float[Array, "n T V"],
    token_ids: Int32[Array, "n T"],
    valid: Bool[Array, "n T"],
    smoothing: float = SMOOTHING,
) -> Float[Array, "n T"]:
    """Smoothed cross entropy of each token from the logits before it; 0 for the first and for padding."""
    log_probs = jax.nn.log_softmax(logits[:, :-1], axis=-1)
    chosen = jnp.take_along_axis(log_probs, token_ids[:, 1:, None], axis=-1)[..., 0]
    losses = -(1 - smoothing) * chosen - smoothing * jnp.mean(log_probs, axis=-1)
    return jnp.pad(jnp.where(valid[:, 1:], losses, 0.0), ((0, 0), (1, 0)))
