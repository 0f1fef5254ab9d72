"""Where the resampler's queries attend for one answer, and how much the answer depends on each of them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PyTree
import numpy as np

from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.vision_tokens import View, image_batch, instruction_tokens
from xgenmm_jax.models.blip3 import VLM, VLMConfig, splice
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.reporting.maps import on_canvas

ROW_MULTIPLE = 256
VISION_MULTIPLE = 128
"""Rows and vision tokens are filled up to multiples of these, so that few lengths are compiled."""


class AnswerAttention(NamedTuple):
    """Attention of each query over an image; rows are queries, weights sum to at most 1.

    base: over the global view's patches. crops: over the canvas of the grid, None where the image has one view.
    weight: how much the answer depends on each query, of base's and then of crops' (|gradient times input|); sums to 1.
    """

    base: Float[np.ndarray, "Q h w"]
    crops: Float[np.ndarray, "n h w"] | None
    weight: Float[np.ndarray, " m"]


def has_spatial_queries(config: VLMConfig) -> bool:
    """Whether there is a resampler, and each group of its queries reads one crop or strip of the image."""
    return isinstance(config.connector, ResamplerConfig) and config.token_sampling is not TokenSampling.FIXED_SAMPLING


def answer_attention(
    config: VLMConfig, params: PyTree, tokenizer: Tokenizer, cut: AnyRes, prompt: Prompt, answer: str
) -> AnswerAttention:
    """Attention of the resampler for the one image of a prompt, mean over its layers and heads.

    Raises ValueError where the model has no such resampler or the prompt not one image.
    """
    if not has_spatial_queries(config) or len(prompt.images) != 1:
        raise ValueError(
            f"attention: got {len(prompt.images)} images and a {type(config.connector).__name__}, "
            f"{config.token_sampling.value}; wanted one image and a resampler of crops or strips."
        )
    # The views through tower and resampler.
    ids = np.asarray(prompt.token_ids, np.int32)
    instruction_length = instruction_tokens(config)
    instruction = tuple(ids[ids != tokenizer.image_id][:instruction_length].tolist()) if instruction_length else ()
    view = View(prompt.images[0], cut, instruction)
    layout = anyres.layout(view.image.size_px, cut)
    batch = image_batch([view], [view.pixels()], 1, instruction_length)
    tokens, attention = _encode(config, params, batch)

    # The answer behind the prompt, and how much its likelihood depends on each vision token.
    answer_ids = np.asarray([*tokenizer.encode_parts((answer,), starts=False), tokenizer.end_id], np.int32)
    answered = np.concatenate([ids, answer_ids])
    expanded = np.repeat(answered, np.where(answered == tokenizer.image_id, tokens.shape[1], 1))
    row = _padded_row(expanded, len(answer_ids), tokenizer.image_id)
    padded = jnp.pad(tokens, ((0, 0), (0, -tokens.shape[1] % VISION_MULTIPLE), (0, 0)))
    weight = np.asarray(_token_weights(config, params, padded, *row))[: tokens.shape[1]]

    # Attention as maps over the global view and over the grid of crops.
    side = config.vision.grid
    weights_CQP = np.asarray(attention, np.float32)
    base = weights_CQP[0].reshape(-1, side, side)
    crops = None
    if layout.crops > 1:
        crops = on_canvas(weights_CQP[1:], layout.grid, side, config.token_sampling is TokenSampling.STRIPS)
    return AnswerAttention(base, crops, weight / max(weight.sum(), 1e-12))


@functools.partial(jax.jit, static_argnames=("config",))
def _encode(config: VLMConfig, params: PyTree, batch) -> tuple[Float[Array, "1 M D"], Float[Array, "C Q P"]]:
    """Vision tokens, and attention of queries to patches; what queries give to each other is left out."""
    tokens, state = VLM(config).apply(
        {"params": params}, batch, method="encode_images", mutable=["attention"]
    )
    (attention_LCNQR,) = state["attention"]["connector"]["layers"]["weights"]
    return tokens, attention_LCNQR[..., : config.vision.grid**2].mean((0, 2))


class _Row(NamedTuple):
    token_ids: Int32[np.ndarray, "1 t"]
    segment_ids: Int32[np.ndarray, "1 t"]
    slot: Int32[np.ndarray, "1 t"]
    is_answer: Bool[np.ndarray, "1 t"]


def _padded_row(token_ids: np.ndarray, answer_length: int, image_id: int) -> _Row:
    """A row of one sample, filled up to a multiple of ROW_MULTIPLE."""
    length = len(token_ids)
    fill = -length % ROW_MULTIPLE
    is_image = token_ids == image_id
    position = np.arange(length + fill)[None]
    return _Row(
        np.pad(token_ids, (0, fill))[None].astype(np.int32),
        (position < length).astype(np.int32),
        np.pad(np.where(is_image, np.cumsum(is_image) - 1, -1), (0, fill), constant_values=-1)[None].astype(np.int32),
        (position >= length - answer_length) & (position < length),
    )


@functools.partial(jax.jit, static_argnames=("config",))
def _token_weights(
    config: VLMConfig,
    params: PyTree,
    tokens: Float[Array, "1 M D"],
    token_ids: Int32[Array, "1 t"],
    segment_ids: Int32[Array, "1 t"],
    slot: Int32[Array, "1 t"],
    is_answer: Bool[Array, "1 t"],
) -> Float[Array, " M"]:
    """|gradient times input| of each vision token, for the answer's log-likelihood."""
    positions = jnp.arange(token_ids.shape[1], dtype=jnp.int32)[None]
    # Answers never hold the decoupled ids, and below them ids are columns of the logits.
    target = jnp.minimum(token_ids, config.decoder.num_text_tokens - 1)[:, 1:, None]

    def log_likelihood(vision: Float[Array, "1 M D"]) -> Float[Array, ""]:
        def forward(model: VLM) -> Float[Array, "1 t V"]:
            x = splice(model.decoder.embed(token_ids), vision, slot)
            return model.logits(model.decoder.hidden(x, segment_ids, positions)[:, :-1])

        logits = VLM(config).apply({"params": params}, method=forward)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), target, axis=-1)[..., 0]
        return jnp.where(is_answer[:, 1:], picked, 0.0).sum()

    gradient = jax.grad(log_likelihood)(tokens)
    return jnp.linalg.norm((gradient * tokens)[0].astype(jnp.float32), axis=-1)
