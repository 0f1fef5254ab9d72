"""BLIP3-o on BLIP-3: queries carry a caption's meaning out of the decoder, a head turns it into features of an image.

The parameter tree is BLIP-3's with three parts more: `drawing` (queries and head), `target` (what the features are
normalised with, and an autoencoder where its latents are drawn) and `pixels` (features to pixels). Each trains in a
stage of its own. Source: docs/reference/blip3o.md.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.models import blip3
from xgenmm_jax.models.autoencoder import Autoencoder, AutoencoderConfig, PixelDecoder, PixelDecoderConfig
from xgenmm_jax.models.blip3 import VLM, VLMConfig, splice
from xgenmm_jax.models.dit import DiT, DiTConfig
from xgenmm_jax.models.eva import EVA, EVAConfig
from xgenmm_jax.models.layers import torch_linear
from xgenmm_jax.models.vit import ViTConfig

Params = Any
PARTS = ("drawing", "target", "pixels")
UNDERSTANDING = ("vision", "connector", "decoder")
"""What sequential training leaves as it is."""
STATISTICS = ("target/mean", "target/std", "pixels/mean", "pixels/std")
"""What is measured and never trains, by gradients as little as by decay, whatever a run freezes."""


@dataclass(frozen=True)
class TowerTarget:
    """Features of BLIP-3's own tower, averaged to grid x grid cells.

    layer: "last" is what BLIP-3 reads, behind the last norm; "penultimate" the input of the last block, which the
    SigLIP 2 variant of BLIP3-o takes.
    """

    grid: int = 8
    layer: Literal["last", "penultimate"] = "last"


@dataclass(frozen=True)
class EVATarget:
    """Features of EVA-CLIP-E, which the released weights draw, averaged to grid x grid cells.

    Its parameters are `target/eva`; `--initialize` or `xgenmm convert` bring them in.
    """

    tower: EVAConfig = EVAConfig()
    grid: int = 8


@dataclass(frozen=True)
class LatentTarget:
    """Latents of an autoencoder, whose parameters are `target/autoencoder`: the study's design c."""

    autoencoder: AutoencoderConfig


@dataclass(frozen=True)
class LinearHead:
    """One linear map from each query's state to one cell, in raster order: the study's design a. No noise, no DiT."""


@dataclass(frozen=True)
class FlowPixels:
    """Features to pixels by a second diffusion model, on latents of an autoencoder, conditioned on the features.

    The DiT's cross-attention reads the cells, its time vector their mean. Parameters: `pixels/dit`,
    `pixels/autoencoder`, and `pixels/mean` and `pixels/std` of its latents.
    """

    dit: DiTConfig
    autoencoder: AutoencoderConfig


@dataclass(frozen=True)
class DrawingConfig:
    """What a BLIP-3 has beside itself to draw.

    queries: R; with a LinearHead as many as the target has cells. head: what makes features of the queries' states.
    normalised: features are shifted and scaled to mean 0 and variance 1 by channel, by statistics that a run measures
    at its start; False: as they are, as upstream.
    pixels: what makes an image of the tower's features; None: features alone are drawn. Latents have their autoencoder.
    """

    head: DiTConfig | LinearHead = DiTConfig(channels=1152, context_width=3072)
    target: TowerTarget | EVATarget | LatentTarget = TowerTarget()
    queries: int = 64
    normalised: bool = True
    pixels: PixelDecoderConfig | FlowPixels | None = None

    def __post_init__(self):
        if self.queries < 1:
            raise ValueError(f"drawing.queries: got {self.queries}, wanted 1 or more.")


@dataclass(frozen=True)
class Blip3oConfig(VLMConfig):
    """A BLIP-3 that also draws. As a VLMConfig it is the understanding model, which ignores the further parts.

    Raises ValueError where the head's sizes are not those of target and decoder.
    """

    drawing: DrawingConfig = DrawingConfig()

    def __post_init__(self):
        super().__post_init__()
        head, side, channels = self.drawing.head, self.target_side, self.target_channels
        if isinstance(head, DiTConfig):
            if (head.channels, head.context_width) != (channels, self.decoder.width):
                raise ValueError(
                    f"drawing.head: got {head.channels} channels and a context of width {head.context_width}, the "
                    f"target has {channels} and the decoder {self.decoder.width}; make them equal."
                )
            head.grid(side, side)
        elif self.drawing.queries != side**2:
            raise ValueError(
                f"drawing.queries: got {self.drawing.queries} for a target of {side} x {side} cells; a linear head "
                f"makes one cell of one query: give {side**2}."
            )
        self._check_pixels()
        target = self.drawing.target
        if not isinstance(target, LatentTarget) and not 1 <= target.grid <= self.target_tower.grid:
            raise ValueError(
                f"drawing.target.grid: got {target.grid}, the tower has {self.target_tower.grid} patches a side; "
                f"choose 1 to {self.target_tower.grid}."
            )

    def _check_pixels(self) -> None:
        """Raises ValueError where what makes pixels does not take the features."""
        pixels, side, channels = self.drawing.pixels, self.target_side, self.target_channels
        if pixels is not None and isinstance(self.drawing.target, LatentTarget):
            raise ValueError("drawing.pixels: the latents' own autoencoder makes pixels of them; leave it None.")
        if isinstance(pixels, PixelDecoderConfig) and (pixels.grid, pixels.channels) != (side, channels):
            raise ValueError(
                f"drawing.pixels: a decoder of {pixels.grid} x {pixels.grid} cells of {pixels.channels} channels for a "
                f"target of {side} x {side} of {channels}; make them equal."
            )
        if isinstance(pixels, FlowPixels):
            got = pixels.dit.context_width, pixels.dit.channels
            if got != (channels, pixels.autoencoder.channels):
                raise ValueError(
                    f"drawing.pixels.dit: got context_width {got[0]} and {got[1]} channels, the features have "
                    f"{channels} and the latents {pixels.autoencoder.channels}; make them equal."
                )
            pixels.dit.grid(pixels.autoencoder.side, pixels.autoencoder.side)

    @property
    def target_side(self) -> int:
        """Cells along a side of what is drawn."""
        target = self.drawing.target
        return target.autoencoder.side if isinstance(target, LatentTarget) else target.grid

    @property
    def target_channels(self) -> int:
        target = self.drawing.target
        return target.autoencoder.channels if isinstance(target, LatentTarget) else self.target_tower.width

    @property
    def target_px(self) -> int:
        """Side of the images that features are of."""
        target = self.drawing.target
        return (target.autoencoder if isinstance(target, LatentTarget) else self.target_tower).image_size_px

    @property
    def target_tower(self) -> ViTConfig | EVAConfig:
        """What makes the features of a target that is no `LatentTarget`, with the layers that run for it."""
        target = self.drawing.target
        if isinstance(target, EVATarget):
            return target.tower
        is_last = isinstance(target, TowerTarget) and target.layer == "last"
        return self.vision if is_last else replace(self.vision, layers=self.vision.layers - 1)


class DrawingHead(nn.Module):
    """The vector that begins an image, the queries, and the DiT or linear map behind them."""

    config: Blip3oConfig

    def setup(self):
        config = self.config
        width, drawing = config.decoder.width, config.drawing
        small = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("norm",))
        self.opening = self.param("opening", small, (width,))
        normal = nn.with_logical_partitioning(nn.initializers.normal(1.0), (None, "embed"))
        self.queries = self.param("queries", normal, (drawing.queries, width))
        if isinstance(drawing.head, DiTConfig):
            self.dit = DiT(drawing.head, config.dtype)
        else:
            self.linear = torch_linear(width, config.target_channels, ("embed", None), "float32", "linear")

    def table(self) -> Float32[Array, "1 r D"]:
        """What `DrawingBatch.query` counts: the opening, then the queries."""
        return jnp.concatenate([self.opening[None], self.queries])[None]

    def velocity(
        self, x: Float[Array, "n h w C"], time: Float32[Array, " n"], states: Float[Array, "n R D"]
    ) -> Float32[Array, "n h w C"]:
        """Of features under flow matching; see `DiT`."""
        return self.dit(x, time, states)

    def features(self, states: Float[Array, "n R D"]) -> Float32[Array, "n h w C"]:
        """What a linear head makes of the states at once."""
        side = self.config.target_side
        return self.linear(states.astype(jnp.float32)).reshape(len(states), side, side, -1)

    def everything(self, x, time, states) -> tuple[Array, Array]:
        """Makes every parameter."""
        has_dit = isinstance(self.config.drawing.head, DiTConfig)
        return self.table(), self.velocity(x, time, states) if has_dit else self.features(states)


def initialize(config: Blip3oConfig, key: Array) -> dict:
    """Parameters from a key, boxed with logical axis names; statistics are 0 until a run has measured them.

    BLIP-3's are those that it begins with alone.
    """
    side, channels, drawing = config.target_side, config.target_channels, config.drawing
    head = DrawingHead(config).init(
        jax.random.fold_in(key, 0xD7),
        jnp.zeros((1, side, side, channels)),
        jnp.zeros(1),
        jnp.zeros((1, drawing.queries, config.decoder.width)),
        method="everything",
    )["params"]
    statistics = nn.with_logical_partitioning(nn.initializers.zeros, ("norm",))
    target: dict[str, Any] = {name: statistics(key, (channels,)) for name in ("mean", "std")}
    if isinstance(drawing.target, LatentTarget):
        encoder = Autoencoder(drawing.target.autoencoder, config.dtype)
        pixels = jnp.zeros((1, config.target_px, config.target_px, 3))
        target["autoencoder"] = encoder.init(jax.random.fold_in(key, 0xAE), pixels)["params"]
    if isinstance(drawing.target, EVATarget):
        pixels = jnp.zeros((1, config.target_px, config.target_px, 3))
        tower = EVA(drawing.target.tower, config.dtype)
        target["eva"] = tower.init(jax.random.fold_in(key, 0xE7), pixels)["params"]
    params = {**blip3.initialize(config, key), "drawing": head, "target": target}
    if drawing.pixels is not None:
        params["pixels"] = _pixel_params(config, jax.random.fold_in(key, 0x9E))
    return params


def _pixel_params(config: Blip3oConfig, key: Array) -> dict:
    pixels, side, channels = config.drawing.pixels, config.target_side, config.target_channels
    features = jnp.zeros((1, side, side, channels))
    if isinstance(pixels, PixelDecoderConfig):
        return PixelDecoder(pixels, config.dtype).init(key, features)["params"]
    coder = pixels.autoencoder
    latents = jnp.zeros((1, coder.side, coder.side, coder.channels))
    image = jnp.zeros((1, coder.image_size_px, coder.image_size_px, 3))
    keys = jax.random.split(key)
    statistics = nn.with_logical_partitioning(nn.initializers.zeros, ("norm",))
    return {
        "dit": DiT(pixels.dit, config.dtype).init(keys[0], latents, jnp.zeros(1), features.reshape(1, -1, channels))[
            "params"
        ],
        "autoencoder": Autoencoder(coder, config.dtype).init(keys[1], image)["params"],
        **{name: statistics(key, (coder.channels,)) for name in ("mean", "std")},
    }


def states(
    vlm: VLM, params: Params, rows: DrawingBatch, has_images: bool
) -> Float[Array, "B T D"]:
    """The decoder's states after its last norm, with the queries in their places.

    has_images: whether rows have images to understand; without, the tower does not run for them.
    """
    table = DrawingHead(vlm.config).apply({"params": params["drawing"]}, method="table")

    def hidden(vlm: VLM) -> Float[Array, "B T D"]:
        batch: Batch = rows.batch
        embeddings = vlm.embed(batch) if has_images else vlm.decoder.embed(batch.token_ids)
        embeddings = splice(embeddings, table.astype(embeddings.dtype), rows.query)
        return vlm.decoder.hidden(embeddings, batch.segment_ids, batch.positions)

    return vlm.apply({"params": params}, method=hidden)


def at_queries(
    hidden: Float[Array, "B T D"], rows: DrawingBatch, queries: int
) -> Float[Array, "B J R D"]:
    """The states at each target's queries, found by index; anything where there is no target."""
    index = query_positions(rows.batch.segment_ids, rows.query, rows.target_segment, queries)
    count = index.shape[1]
    flat = index.reshape(index.shape[0], -1, 1)
    return jnp.take_along_axis(hidden, flat, axis=1).reshape(hidden.shape[0], count, queries, -1)


def query_positions(
    segment_ids: Int32[Array, "B T"], query: Int32[Array, "B T"], target_segment: Int32[Array, "B J"], queries: int
) -> Int32[Array, "B J R"]:
    """Where in its row each query of each target stands; 0 where there is no target."""
    is_of = (segment_ids[:, None] == target_segment[..., None]) & (target_segment[..., None] > 0)
    # One position of a segment has its first query: the sum over those where it stands is this position.
    position = jnp.arange(query.shape[1], dtype=jnp.int32)[None, None]
    first = jnp.sum(jnp.where(is_of & (query[:, None] == 1), position, 0), axis=-1)
    following = jnp.arange(queries, dtype=jnp.int32)[None, None]
    return jnp.where(target_segment[..., None] > 0, first[..., None] + following, 0)
