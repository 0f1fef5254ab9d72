"""What a step that draws runs beside the understanding model: its matrix products, its memory.

Counted are all places of a row for images to draw, real or empty, since the program computes them all.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jaxtyping import Int
import numpy as np

from xgenmm_jax.models.autoencoder import AutoencoderConfig, PixelDecoderConfig, layers_of
from xgenmm_jax.models.blip3o import Blip3oConfig, EVATarget, FlowPixels, LatentTarget
from xgenmm_jax.models.dit import TIME_FREQUENCIES, DiTConfig
from xgenmm_jax.models.eva import EVAConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.planning.product_shapes import NAMES, Passes, Product, attention, cut, kept_products, linear, tower
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.drawing_rows import DrawingRows
from xgenmm_jax.training.objectives.pixel_decoding import Autoencoding, PixelRows, autoencoder_of

FORWARD = Passes(1, inputs=False, weights=False)


class Drawn(NamedTuple):
    """What of its model a step that draws runs."""

    reads_captions: bool
    """The decoder runs, and gradients go through it; False: images alone are read."""
    reads_images: bool
    """Samples with images to understand and text to be learned lie in the same rows."""
    trained: tuple[DiTConfig | PixelDecoderConfig | AutoencoderConfig | int, ...]
    """What makes features or pixels, each with its backward pass; a number: the channels of a linear head."""
    frozen: tuple[str, ...]
    """What makes the targets: "target", features of a tower or latents; "pixels", latents of a `FlowPixels`."""
    draws: int
    parts: tuple[str, ...]
    """Of the parameters, those that are read."""


def of(config: TrainConfig) -> Drawn | None:
    """None where nothing is drawn."""
    objective, model = config.objective, config.model
    if not isinstance(objective, DrawingRows):
        return None
    draws = getattr(objective, "draws", 1)
    target = () if isinstance(model.drawing.target, EVATarget | LatentTarget) else ("vision",)
    if not isinstance(objective, PixelRows):
        images = objective.reads_images
        parts = ("vision", "connector", "decoder") if images else ("decoder", *target)
        head = model.drawing.head if isinstance(model.drawing.head, DiTConfig) else model.target_channels
        return Drawn(True, images, (head,), ("target",), draws, (*parts, "drawing", "target"))
    pixels = model.drawing.pixels
    if isinstance(objective, Autoencoding):
        coder = autoencoder_of(model, objective.part)
        return Drawn(False, False, (coder,), (), 1, (objective.part,))
    parts = (*target, "target", "pixels")
    if isinstance(pixels, FlowPixels):
        return Drawn(False, False, (pixels.dit,), ("target", "pixels"), 1, parts)
    return Drawn(False, False, (pixels,), ("target",), 1, parts)


def segment_lengths(config: TrainConfig) -> Int[np.ndarray, " n"]:
    """Of a full row: one segment, or as many captions to draw as there is room for, of equal length."""
    row, drawn = config.data.row, of(config)
    segments = 1 if drawn is None or drawn.reads_images else row.segments
    return np.full(segments, row.length // segments)


def products(model: Blip3oConfig, drawn: Drawn, images: int, tensor: int) -> Iterator[Product]:
    """Of so many places for images."""
    for part in drawn.frozen:
        yield from _targets(model, part, images, tensor)
    for trained in drawn.trained:
        passes = Passes(1, True, True, frozenset(NAMES) - kept_products(getattr(trained, "remat", "none")))
        if isinstance(trained, DiTConfig):
            side, context = _grid(model, drawn)
            yield from _dit(trained, images * drawn.draws, side, context, passes, tensor)
        elif isinstance(trained, AutoencoderConfig):
            yield from _encoder("drawing", trained, images, passes, tensor)
            yield from _pixel_decoder(trained.decoder, images, passes, tensor)
        elif isinstance(trained, PixelDecoderConfig):
            yield from _pixel_decoder(trained, images, passes, tensor)
        else:
            queries = images * model.drawing.queries
            yield from linear("drawing", 1, queries, model.decoder.width, trained, passes)


def _grid(model: Blip3oConfig, drawn: Drawn) -> tuple[int, int]:
    """(cells along a side of what the diffusion transformer makes, states of its context)."""
    pixels = model.drawing.pixels
    if not drawn.reads_captions and isinstance(pixels, FlowPixels):
        return pixels.autoencoder.side, model.target_side**2
    return model.target_side, model.drawing.queries


def _targets(model: Blip3oConfig, part: str, images: int, tensor: int) -> Iterator[Product]:
    target = model.drawing.target
    if part == "pixels" or isinstance(target, LatentTarget):
        yield from _encoder("target", autoencoder_of(model, part), images, FORWARD, tensor)
    else:
        yield from tower("target", model.target_tower, images, FORWARD, tensor)


def _encoder(part: str, config: AutoencoderConfig, images: int, passes: Passes, tensor: int) -> Iterator[Product]:
    yield from tower(part, layers_of(config), images, passes, tensor)
    yield from linear(part, 1, images * config.side**2, config.width, config.channels, passes)


def _pixel_decoder(config: PixelDecoderConfig, images: int, passes: Passes, tensor: int) -> Iterator[Product]:
    """The map to pixels is as large as a tower's from them."""
    split = config.patches // config.grid
    yield from linear("drawing", 1, images * config.grid**2, config.channels, split**2 * config.width, passes)
    yield from tower("drawing", layers_of(config), images, passes, tensor)


def _dit(config: DiTConfig, images: int, side: int, context: int, passes: Passes, tensor: int) -> Iterator[Product]:
    """side: cells along a side. context: states that each image is drawn under."""
    width, head_width, layers, condition = config.width, config.head_width, config.layers, config.condition_width
    rows, columns = config.grid(side, side)
    heads, kv_heads, hidden = (cut(size, tensor) for size in (config.heads, config.kv_heads, config.hidden))
    tokens, m, states = rows * columns, images * rows * columns, images * context
    patch, qkv, part = config.patch**2 * config.channels, passes.again("qkv"), "drawing"
    # A layer: scales and gates, both attentions and the map behind them, the feed-forward.
    yield from linear(part, layers, images, condition, 4 * width, passes)
    yield from linear(part, layers, m, width, (heads + 2 * kv_heads) * head_width, passes, qkv)
    yield from linear(part, layers, m, width, heads * head_width, passes, qkv)
    yield from linear(part, layers, states, width, 2 * kv_heads * head_width, passes, qkv)
    for keys in (tokens, context):
        yield from attention(
            part, layers, images, tokens, keys, tokens * keys, heads, kv_heads, head_width, passes,
            kernel=config.attention,
        )  # fmt: skip
    yield from linear(part, layers, m, heads * head_width, width, passes, passes.again("out_proj"))
    yield from linear(part, layers, m, width, 2 * hidden, passes, passes.again("mlp_in"))
    yield from linear(part, layers, m, hidden, width, passes)
    # Once: the context's two maps, the time's two, the pooled context's, the last scale; cells in and out.
    yield from linear(part, 1, states, config.context_width, width, passes)
    yield from linear(part, 1, states, width, width, passes)
    yield from linear(part, 1, images, 2 * TIME_FREQUENCIES, condition, passes)
    yield from linear(part, 1, images, condition, condition, passes)
    yield from linear(part, 2, images, width, condition, passes)
    yield from linear(part, 2, m, patch, width, passes)


def held_bytes(model: Blip3oConfig, drawn: Drawn, images: float | int, tensor: int) -> float:
    """What the backward pass needs of what makes features or pixels, for so many places of a chip."""
    total = 0.0
    for config in drawn.trained:
        if isinstance(config, DiTConfig):
            side, context = _grid(model, drawn)
            tokens, hidden = side**2 // config.patch**2 * drawn.draws, config.hidden
            # The stream is float32. Beside the tokens' queries, keys and values those of the context.
            widths = {
                "qkv": 4 * config.width + 2 * config.width * context * drawn.draws / tokens,
                "context": 2 * config.width,
                "out_proj": config.width,
                "mlp_in": 2 * hidden,
            }
            rest = {"none": 4 * hidden + 16 * config.width}.get(config.remat, 0)
            total += images * _kept(config.layers, tokens, config.remat, widths, rest, 2 * config.width, tensor)
            continue
        for one in _stacks(config):
            widths = {"qkv": 3 * one.width, "context": one.width, "out_proj": one.width, "mlp_in": one.hidden}
            rest = {"none": one.hidden + 4 * one.width}.get(one.remat, 0)
            tokens = (one.image_size_px // one.patch_px) ** 2
            total += images * _kept(one.layers, tokens, one.remat, widths, rest, one.width, tensor)
    return total


def _stacks(config: PixelDecoderConfig | AutoencoderConfig | int) -> tuple[PixelDecoderConfig | AutoencoderConfig, ...]:
    """Each stack of layers; an autoencoder has two alike."""
    if isinstance(config, int):
        return ()
    return (config, config) if isinstance(config, AutoencoderConfig) else (config,)


def _kept(
    layers: int, tokens: int, remat: str, widths: Mapping[str, float | int], rest: int, stream: int, tensor: int
) -> float:
    """Bytes of one image. rest: what a policy keeps beside `widths`. stream: of the input, in numbers of 2 bytes."""
    saved = sum(widths[name] for name in kept_products(remat)) + rest
    return layers * tokens * 2.0 * (stream + saved / tensor)


def working_bytes(model: Blip3oConfig, drawn: Drawn, images: float | int, tensor: int) -> float:
    """The largest of what one layer needs at a time, of what makes the targets and of what is trained."""
    target = model.drawing.target
    stacks: list[ViTConfig | EVAConfig | PixelDecoderConfig | AutoencoderConfig] = []
    if "target" in drawn.frozen and not isinstance(target, LatentTarget):
        stacks.append(model.target_tower)
    most = 0.0
    for config in drawn.trained:
        if isinstance(config, DiTConfig):
            tokens = _grid(model, drawn)[0] ** 2 // config.patch**2 * drawn.draws
            most = images * tokens * (12 * config.width + 6 * config.hidden / tensor) * 4
        else:
            stacks += _stacks(config)
    for one in stacks:
        tokens = (one.image_size_px // one.patch_px) ** 2
        most = max(most, images * tokens * 6 * (one.width + one.hidden / tensor) * 2)
    return most
