"""What of an image is drawn, features of a tower or latents; how they are scaled; and what makes pixels of them."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt8

from xgenmm_jax.models.autoencoder import Autoencoder, PixelDecoder, PixelDecoderConfig
from xgenmm_jax.models.blip3o import Blip3oConfig, EVATarget, FlowPixels, LatentTarget
from xgenmm_jax.models.eva import EVA
from xgenmm_jax.models.layers import normalize_pixels, shard_batch
from xgenmm_jax.models.pooling import pool_grid
from xgenmm_jax.models.vit import ViT, penultimate

Params = Any


def raw_features(config: Blip3oConfig, params: Params, pixels: UInt8[Array, "n h w 3"]) -> Float32[Array, "n g g C"]:
    """What of an image is drawn, before it is normalised; no gradient."""
    target = config.drawing.target
    if isinstance(target, LatentTarget):
        return raw_latents(config, params["target"], pixels)
    vision = config.target_tower
    inputs = shard_batch(normalize_pixels(pixels, config.dtype, vision.pixel_mean, vision.pixel_std))
    if isinstance(target, EVATarget):
        tokens = EVA(target.tower, config.dtype).apply({"params": params["target"]["eva"]}, inputs)
    elif target.layer == "penultimate":
        tokens = penultimate(config.vision, config.dtype, params["vision"], inputs)
    else:
        # Without the class token of a tower whose features hold it, which has no norm behind its layers.
        method = "before_norm" if config.vision.bare else "__call__"
        tokens = ViT(config.vision, config.dtype).apply({"params": params["vision"]}, inputs, method=method)
    grid = vision.grid
    tokens = tokens.astype(jnp.float32).reshape(len(pixels), grid, grid, -1)
    return jax.lax.stop_gradient(pool_grid(tokens, target.grid))


def normalised(config: Blip3oConfig, params: Params, raw: Float32[Array, "n g g C"]) -> Float32[Array, "n g g C"]:
    """Features with mean 0 and variance 1 a channel, as they are learned and sampled."""
    return scaled(params["target"], raw) if config.drawing.normalised else raw


def denormalised(config: Blip3oConfig, params: Params, x: Float32[Array, "n g g C"]) -> Float32[Array, "n g g C"]:
    """The inverse of `normalised`."""
    return unscaled(params["target"], x) if config.drawing.normalised else x


def scaled(part: Params, x: Float32[Array, "n g g C"]) -> Float32[Array, "n g g C"]:
    """By a part's `mean` and `std`; as they are where these are not measured."""
    mean, std = _of_channels(part)
    return (x - mean) / std


def unscaled(part: Params, x: Float32[Array, "n g g C"]) -> Float32[Array, "n g g C"]:
    """The inverse of `scaled`."""
    mean, std = _of_channels(part)
    return x * std + mean


def _of_channels(part: Params) -> tuple[Float32[Array, "1 1 1 C"], Float32[Array, "1 1 1 C"]]:
    # Measured and never learned: a larger std would make every loss on features smaller. They have no decay either
    # (`blip3o.STATISTICS`).
    mean, std = (jax.lax.stop_gradient(part[name])[None, None, None] for name in ("mean", "std"))
    return mean, jnp.where(std > 0, std, 1.0)


def raw_latents(config: Blip3oConfig, part: Params, pixels: UInt8[Array, "n h w 3"]) -> Float32[Array, "n g g C"]:
    """Latents of the autoencoder of a part, `target` or `pixels`; no gradient."""
    holder = config.drawing.target if isinstance(config.drawing.target, LatentTarget) else config.drawing.pixels
    assert isinstance(holder, LatentTarget | FlowPixels)
    encoder = Autoencoder(holder.autoencoder, config.dtype)
    latents = encoder.apply({"params": part["autoencoder"]}, normalize_pixels(pixels, config.dtype), method="encode")
    return jax.lax.stop_gradient(latents)


def pixel_latents(config: Blip3oConfig, params: Params, pixels: UInt8[Array, "n h w 3"]) -> Float32[Array, "n g g C"]:
    """What a `FlowPixels` draws of an image: its autoencoder's latents, scaled."""
    return scaled(params["pixels"], raw_latents(config, params["pixels"], pixels))


def to_pixels(config: Blip3oConfig, params: Params, features: Float32[Array, "n g g C"]) -> UInt8[Array, "n h w 3"]:
    """Images of normalised features, by a map without noise.

    Raises ValueError where the model has none: it draws features alone, or its pixels are sampled (`FlowPixels`).
    """
    drawing = config.drawing
    if isinstance(drawing.target, LatentTarget):
        decoder, part = Autoencoder(drawing.target.autoencoder, config.dtype), params["target"]["autoencoder"]
        images = decoder.apply({"params": part}, denormalised(config, params, features), method="decode")
    elif isinstance(drawing.pixels, PixelDecoderConfig):
        images = PixelDecoder(drawing.pixels, config.dtype).apply({"params": params["pixels"]}, features)
    else:
        raise ValueError("draw: the model makes features and no pixels of them; give model.drawing.pixels a decoder.")
    return as_bytes(images)


def as_bytes(pixels: Float32[Array, "*n"]) -> UInt8[Array, "*n"]:
    """-1..1 as 0..255, what lies beyond cut off."""
    return jnp.clip(jnp.round((pixels + 1) * 127.5), 0, 255).astype(jnp.uint8)


def has_statistics(config: Blip3oConfig, params: Params) -> bool:
    """Whether the features' statistics are known, or not needed."""
    return not config.drawing.normalised or bool(jnp.any(params["target"]["std"] > 0))


