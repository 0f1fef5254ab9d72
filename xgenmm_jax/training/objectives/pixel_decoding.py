"""Features to pixels, and the autoencoder whose latents are drawn: what is trained on images alone.

Rows are those of the captions to draw, whose texts are not read.
"""

import abc
from collections.abc import Iterator
from dataclasses import dataclass
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.models import drawing_features
from xgenmm_jax.models.autoencoder import Autoencoder, AutoencoderConfig, PixelDecoder, PixelDecoderConfig
from xgenmm_jax.models.blip3o import Blip3oConfig, FlowPixels, LatentTarget
from xgenmm_jax.models.dit import DiT
from xgenmm_jax.models.drawing_flops import encoder_flops, pixel_decoder_flops, pixel_flops, target_flops
from xgenmm_jax.models.flops import Flops, Workload, dit_flops
from xgenmm_jax.models.layers import normalize_pixels
from xgenmm_jax.training.objectives.base import Items, Params
from xgenmm_jax.training.objectives.drawing_rows import DrawingRows, drawn_items, flat, target_keys, with_statistics
from xgenmm_jax.training.objectives.flow_matching import check_drop, draw


class PixelRows(DrawingRows):
    """An objective on the images to draw, whose captions are not read; subclasses have the loss of each image."""

    @abc.abstractmethod
    def image_losses(self, model: Blip3oConfig, params: Params, rows: DrawingBatch) -> Float32[Array, " n"]:
        """Of every place for an image, row by row; those without one are left out later."""

    def items(
        self, model: Blip3oConfig, params: Params, reference: Params | None, rows: DrawingBatch, freeze: tuple[str, ...]
    ) -> Items:
        """The images."""
        return drawn_items(rows, self.image_losses(model, params, rows).reshape(rows.target_segment.shape))

    def work(self, model: Blip3oConfig, load: Workload, images: int, freeze: tuple[str, ...]) -> Flops:
        """Of the images alone."""
        return pixel_flops(images, *self.image_flops(model))

    @abc.abstractmethod
    def image_flops(self, model: Blip3oConfig) -> tuple[int, int]:
        """FLOPs of one image through what trains, once forward, and through what makes its target."""


@dataclass(frozen=True)
class PixelDecoding(PixelRows):
    """A `PixelDecoderConfig` on noised features, so that it forgives sampled ones: mean |error| + error^2 of pixels.

    noise: least and largest standard deviation of what is added to the normalised features, drawn for each image.
    """

    noise: tuple[float, float] = (0.0, 0.3)

    def __post_init__(self):
        if not 0 <= self.noise[0] <= self.noise[1] < math.inf:
            raise ValueError(f"objective.noise: got {self.noise}, wanted least and largest, 0 or more.")

    def check(self, model: Blip3oConfig, data: DataConfig) -> None:
        super().check(model, data)
        if not isinstance(model.drawing.pixels, PixelDecoderConfig):
            raise ValueError("model.drawing.pixels: give the PixelDecoderConfig that is to be trained.")

    def image_flops(self, model: Blip3oConfig) -> tuple[int, int]:
        assert isinstance(model.drawing.pixels, PixelDecoderConfig)
        return pixel_decoder_flops(model.drawing.pixels), target_flops(model)

    def image_losses(self, model: Blip3oConfig, params: Params, rows: DrawingBatch) -> Float32[Array, " n"]:
        pixels = flat(rows.target_pixels)
        features = drawing_features.normalised(model, params, drawing_features.raw_features(model, params, pixels))

        def noise_of(key: Array) -> Array:
            of_std, of_noise = jax.random.split(key)
            std = jax.random.uniform(of_std, minval=self.noise[0], maxval=self.noise[1])
            return std * jax.random.normal(of_noise, features.shape[1:])

        features = features + jax.vmap(noise_of)(target_keys(rows, 1))
        decoded = PixelDecoder(model.drawing.pixels, model.dtype).apply({"params": params["pixels"]}, features)
        return pixel_errors(decoded, normalize_pixels(pixels))


@dataclass(frozen=True)
class Autoencoding(PixelRows):
    """An autoencoder of latents, with noise on them so that close ones decode alike.

    part: "target", the one whose latents are drawn; "pixels", that of a `FlowPixels`. noise: its standard deviation, as
    a part of the root mean square of an image's latents. size_weight: of the latents' mean square, which keeps them
    small.
    """

    part: Literal["target", "pixels"] = "target"
    noise: float = 0.1
    size_weight: float = 1e-3

    def __post_init__(self):
        if not (0 <= self.noise < math.inf and 0 <= self.size_weight < math.inf):
            raise ValueError(
                f"objective: got noise {self.noise} and size_weight {self.size_weight}, wanted 0 or more of each."
            )

    def check(self, model: Blip3oConfig, data: DataConfig) -> None:
        super().check(model, data)
        autoencoder_of(model, self.part)

    def image_flops(self, model: Blip3oConfig) -> tuple[int, int]:
        coder = autoencoder_of(model, self.part)
        return encoder_flops(coder) + pixel_decoder_flops(coder.decoder), 0

    def prepare(self, model: Blip3oConfig, params: Params, batches: Iterator[DrawingBatch]) -> Params:
        """The latents' statistics unknown: they are measured when the latents no longer change, by the next stage."""
        unknown = {name: jnp.zeros_like(params[self.part][name]) for name in ("mean", "std")}
        return {**params, self.part: params[self.part] | unknown}

    def image_losses(self, model: Blip3oConfig, params: Params, rows: DrawingBatch) -> Float32[Array, " n"]:
        coder = Autoencoder(autoencoder_of(model, self.part), model.dtype)
        variables = {"params": params[self.part]["autoencoder"]}
        pixels = normalize_pixels(flat(rows.target_pixels))
        latents = coder.apply(variables, pixels.astype(model.dtype), method="encode")
        size = jax.lax.stop_gradient(jnp.sqrt(jnp.mean(jnp.square(latents), axis=(1, 2, 3), keepdims=True)))
        noise = jax.vmap(lambda key: jax.random.normal(key, latents.shape[1:]))(target_keys(rows, 1))
        decoded = coder.apply(variables, latents + self.noise * size * noise, method="decode")
        return pixel_errors(decoded, pixels) + self.size_weight * jnp.mean(jnp.square(latents), axis=(1, 2, 3))


@dataclass(frozen=True)
class FlowPixelDecoding(PixelRows):
    """A `FlowPixels` by flow matching on its autoencoder's latents; the null condition is features of zeros.

    drop: share of images whose features are taken away.
    """

    drop: float = 0.1

    def __post_init__(self):
        check_drop(self.drop)

    def check(self, model: Blip3oConfig, data: DataConfig) -> None:
        super().check(model, data)
        if not isinstance(model.drawing.pixels, FlowPixels):
            raise ValueError("model.drawing.pixels: give the FlowPixels that is to be trained.")

    def prepare(self, model: Blip3oConfig, params: Params, batches: Iterator[DrawingBatch]) -> Params:
        """Statistics of the latents beside those of the features; as they are where known."""
        params = super().prepare(model, params, batches)
        if bool(jnp.any(params["pixels"]["std"] > 0)):
            return params

        def latents(params: Params, pixels: Array) -> Array:
            return drawing_features.raw_latents(model, params["pixels"], pixels)

        return with_statistics(params, "pixels", latents, batches)

    def image_flops(self, model: Blip3oConfig) -> tuple[int, int]:
        pixels = model.drawing.pixels
        assert isinstance(pixels, FlowPixels)
        side = pixels.autoencoder.side
        trained = dit_flops(pixels.dit, side, side, model.target_side**2)
        return trained, target_flops(model) + encoder_flops(pixels.autoencoder)

    def image_losses(self, model: Blip3oConfig, params: Params, rows: DrawingBatch) -> Float32[Array, " n"]:
        pixels, flow = flat(rows.target_pixels), model.drawing.pixels
        features = drawing_features.normalised(model, params, drawing_features.raw_features(model, params, pixels))
        latents = drawing_features.pixel_latents(model, params, pixels)
        one = draw(latents, target_keys(rows, 1), self.drop)
        context = jnp.where(one.is_dropped[:, None, None], 0, features.reshape(len(features), -1, features.shape[-1]))
        velocity = DiT(flow.dit, model.dtype).apply({"params": params["pixels"]["dit"]}, one.x, one.time, context)
        return jnp.mean(jnp.square(velocity - one.velocity), axis=(1, 2, 3))


def pixel_errors(decoded: Float[Array, "n h w 3"], true: Float[Array, "n h w 3"]) -> Float32[Array, " n"]:
    """Mean absolute and mean squared error of each image, added."""
    error = decoded - true
    return jnp.mean(jnp.abs(error) + jnp.square(error), axis=(1, 2, 3))


def autoencoder_of(model: Blip3oConfig, part: str) -> AutoencoderConfig:
    """Raises ValueError where the part has none."""
    holder = model.drawing.target if part == "target" else model.drawing.pixels
    if isinstance(holder, LatentTarget | FlowPixels):
        return holder.autoencoder
    expected = "a LatentTarget" if part == "target" else "FlowPixels"
    got = type(holder).__name__
    raise ValueError(f"model.drawing.{part}: got a {got}, wanted {expected}, which has an autoencoder.")
