"""Where the resampler looked, in the picture's own geometry, and which of its queries an answer hangs on."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PyTree
import numpy as np
import PIL.Image

from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.chat import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.vision_tokens import View, instruction_tokens, picture_batch
from xgenmm_jax.models.blip3 import VLM, VLMConfig, splice
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling

ROW_MULTIPLE = 256
VISION_MULTIPLE = 128
"""Rows and vision tokens are filled up to multiples of these, so that few lengths are compiled."""


class Look(NamedTuple):
    """Attention of each query over a picture; rows are queries, weights sum to at most 1.

    base: over the global view's patches. crops: over the canvas of the grid, None where the picture has one view.
    weight: of base's and then of crops' queries, how much the answer hangs on each; sums to 1.
    """

    base: Float[np.ndarray, "Q h w"]
    crops: Float[np.ndarray, "n h w"] | None
    weight: Float[np.ndarray, " m"]


def can_look(config: VLMConfig) -> bool:
    """Whether there is a resampler whose groups have a place in the picture."""
    return isinstance(config.connector, ResamplerConfig) and config.token_sampling is not TokenSampling.FIXED_SAMPLING


def look(
    config: VLMConfig, params: PyTree, tokenizer: Tokenizer, cut: AnyRes, prompt: Prompt, answer: str
) -> Look:
    """Attention of the resampler for the one picture of a prompt, mean over its layers and heads.

    Raises ValueError where the model has no such resampler or the prompt not one picture.
    """
    if not can_look(config) or len(prompt.pictures) != 1:
        raise ValueError(
            f"attention: got {len(prompt.pictures)} pictures and a {type(config.connector).__name__}, "
            f"{config.token_sampling.value}; wanted one picture and a resampler of crops or strips."
        )
    ids = np.asarray(prompt.token_ids, np.int32)
    read = instruction_tokens(config)
    instruction = tuple(ids[ids != tokenizer.image_id][:read].tolist()) if read else ()
    view = View(prompt.pictures[0], cut, instruction)
    placed = anyres.layout(view.picture.size_px, cut)
    batch = picture_batch([view], [view.pixels()], 1, read)
    tokens, attention = _encode(config, params, batch)

    answer_ids = np.asarray([*tokenizer.encode_parts((answer,)), tokenizer.end_id], np.int32)
    answered = np.concatenate([ids, answer_ids])
    expanded = np.repeat(answered, np.where(answered == tokenizer.image_id, tokens.shape[1], 1))
    row = _padded_row(expanded, len(answer_ids), tokenizer.image_id)
    padded = jnp.pad(tokens, ((0, 0), (0, -tokens.shape[1] % VISION_MULTIPLE), (0, 0)))
    weight = np.asarray(_hangs_on(config, params, padded, *row))[: tokens.shape[1]]

    side = config.vision.grid
    weights_CQP = np.asarray(attention, np.float32)
    base = weights_CQP[0].reshape(-1, side, side)
    crops = None
    if placed.crops > 1:
        crops = on_canvas(weights_CQP[1:], placed.grid, side, config.token_sampling is TokenSampling.STRIPS)
    return Look(base, crops, weight / max(weight.sum(), 1e-12))


@functools.partial(jax.jit, static_argnames=("config",))
def _encode(config: VLMConfig, params: PyTree, batch) -> tuple[Float[Array, "1 M D"], Float[Array, "C Q P"]]:
    """Vision tokens, and attention of queries to patches; what queries give to each other is left out."""
    tokens, kept = VLM(config).apply(
        {"params": params}, batch, method="encode_images", mutable=["attention"]
    )
    (attention_LCNQR,) = kept["attention"]["connector"]["layers"]["weights"]
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
    place = np.arange(length + fill)[None]
    return _Row(
        np.pad(token_ids, (0, fill))[None].astype(np.int32),
        (place < length).astype(np.int32),
        np.pad(np.where(is_image, np.cumsum(is_image) - 1, -1), (0, fill), constant_values=-1)[None].astype(np.int32),
        (place >= length - answer_length) & (place < length),
    )


@functools.partial(jax.jit, static_argnames=("config",))
def _hangs_on(
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


def on_canvas(
    weights_CQP: Float[np.ndarray, "C Q P"], grid: tuple[int, int], side: int, strips: bool
) -> Float[np.ndarray, "n h w"]:
    """One canvas for each query of each crop, zero where that query cannot see."""
    columns, rows = grid
    crops, queries, patches = weights_CQP.shape
    canvas = np.zeros((crops, queries, rows * side, columns * side), np.float32)
    for crop in range(crops):
        if strips:
            flat = canvas[crop].reshape(queries, -1)
            flat[:, crop * patches : (crop + 1) * patches] = weights_CQP[crop]
        else:
            top, left = crop // columns * side, crop % columns * side
            canvas[crop, :, top : top + side, left : left + side] = weights_CQP[crop].reshape(queries, side, side)
    return canvas.reshape(crops * queries, rows * side, columns * side)


def canvas_to_picture(
    heat: Float[np.ndarray, "h w"], picture_px: tuple[int, int], target_px: tuple[int, int], squashed: bool
) -> Float[np.ndarray, "H W"]:
    """Heat over feature cells as heat over a picture of `target_px` (width, height), 0 to 1.

    squashed: the cells cover the whole picture (global view); else the picture lies centered on the canvas, as
    `anyres.crops` lays it. A 64 x 32 picture on a canvas of 16 x 16 cells covers rows 4 to 12.
    """
    rows, columns = heat.shape
    scale = min(columns / picture_px[0], rows / picture_px[1])
    width, height = (columns, rows) if squashed else (picture_px[0] * scale, picture_px[1] * scale)
    left, top = (columns - width) / 2, (rows - height) / 2
    image = PIL.Image.fromarray(heat.astype(np.float32) / max(float(heat.max()), 1e-12))
    resized = image.resize(target_px, PIL.Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    return np.clip(np.asarray(resized), 0.0, 1.0)


def spotlight(picture: PIL.Image.Image, heat: Float[np.ndarray, "H W"]) -> PIL.Image.Image:
    """The picture lit where it was looked at, night blue elsewhere: readable without telling colors apart."""
    width, height = heat.shape[1], heat.shape[0]
    kernel = PIL.Image.Resampling.NEAREST if width > picture.width else PIL.Image.Resampling.BICUBIC
    pixels = np.asarray(picture.convert("RGB").resize((width, height), kernel), np.float32)
    light = 0.12 + 0.88 * np.power(heat, 0.8)[..., None]
    night = np.array([18, 24, 52], np.float32)
    return PIL.Image.fromarray(np.uint8(pixels * light + night * (1 - light)))


def enlarged(size_px: tuple[int, int], longer_px: int) -> tuple[int, int]:
    """The size with its longer side at `longer_px`."""
    scale = longer_px / max(size_px)
    return max(1, math.floor(size_px[0] * scale + 0.5)), max(1, math.floor(size_px[1] * scale + 0.5))
