"""Rectified flow from noise to an image's features, under the decoder's states at the queries.

Source: docs/reference/blip3o.md#flow-matching.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Key

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.models import blip3o, drawing_features
from xgenmm_jax.models.blip3 import VLM
from xgenmm_jax.models.blip3o import Blip3oConfig, DrawingHead
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.models.drawing_flops import drawing_flops
from xgenmm_jax.models.flops import Flops, Workload
from xgenmm_jax.training.objectives.base import Items, Params, Sum
from xgenmm_jax.training.objectives.drawing_rows import DrawingRows, drawn_items, flat, target_keys, targets_of
from xgenmm_jax.training.objectives.losses import token_log_probs
from xgenmm_jax.training.objectives.packed_rows import check_chunk, trains_vision

TIMES = 1000
"""Steps of the noise schedule: sigma is a multiple of 1 / 1000, and the DiT is told 1000 sigma."""


class Noised(NamedTuple):
    """What a flow is trained on, n images."""

    x: Float32[Array, "n h w C"]
    """(1 - sigma) features + sigma noise."""
    time: Float32[Array, " n"]
    """1000 sigma."""
    velocity: Float32[Array, "n h w C"]
    """Noise minus features."""
    is_dropped: Bool[Array, " n"]
    """Where the condition is taken away."""


def noised(
    features: Float32[Array, "n h w C"], noise: Float32[Array, "n h w C"], u: Float32[Array, " n"]
) -> tuple[Float32[Array, "n h w C"], Float32[Array, " n"], Float32[Array, "n h w C"]]:
    """(x, time, velocity) of draws: sigma = (1000 - floor(1000 u)) / 1000, u uniform in [0, 1)."""
    sigma = (TIMES - jnp.floor(TIMES * u)) / TIMES
    wide = sigma[:, None, None, None]
    return (1 - wide) * features + wide * noise, TIMES * sigma, noise - features


def draw(features: Float32[Array, "n h w C"], keys: Key[Array, " n"], drop: float) -> Noised:
    """Noise, sigma and whether the condition is dropped, of each image's own key."""

    def one(key: Key[Array, ""]) -> tuple[Array, Array, Array]:
        of_noise, of_sigma, of_drop = jax.random.split(key, 3)
        noise = jax.random.normal(of_noise, features.shape[1:])
        return noise, jax.random.uniform(of_sigma), jax.random.bernoulli(of_drop, drop)

    noise, u, is_dropped = jax.vmap(one)(keys)
    return Noised(*noised(features, noise, u), is_dropped)


def check_drop(drop: float) -> None:
    """Raises ValueError for what is no share of conditions to take away."""
    if not 0 <= drop < 1:
        raise ValueError(f"objective.drop: got {drop}, wanted a share from 0 to below 1, 0.1.")


def flow_losses(
    model: Blip3oConfig, params: Params, one: Noised, states: Float[Array, "n R D"]
) -> Float32[Array, " n"]:
    """Mean squared error of each image's velocity, in float32. The states of a dropped condition are zeros."""
    states = jnp.where(one.is_dropped[:, None, None], 0, states)
    head = DrawingHead(model)
    velocity = head.apply({"params": params["drawing"]}, one.x, one.time, states, method="velocity")
    return jnp.mean(jnp.square(velocity - one.velocity), axis=(1, 2, 3))


@dataclass(frozen=True)
class FlowMatching(DrawingRows):
    """Averaged over the images of the global batch.

    drop: share of the captions whose condition is taken away, for guidance when drawing. draws: noised versions of an
    image for each of its conditions, since the decoder takes most of a step. text_weight: of the next-token loss, the
    mean over the tokens that rows supervise, beside the mean over images; 0: nothing of it is computed, and rows may
    hold captions to draw alone.
    """

    drop: float = 0.1
    draws: int = 1
    text_weight: float = 0.0
    chunk: int = 64

    def __post_init__(self):
        check_chunk(self.chunk)
        check_drop(self.drop)
        if self.draws < 1 or not 0 <= self.text_weight < float("inf"):
            raise ValueError(
                f"objective: got draws {self.draws} and text_weight {self.text_weight}; wanted 1 or more, 0 or more."
            )

    @property
    def reads_images(self) -> bool:
        return self.text_weight > 0

    def work(self, model: Blip3oConfig, load: Workload, images: int, freeze: tuple[str, ...]) -> Flops:
        return drawing_flops(model, load, images, freeze, self.draws)

    def check(self, model: Blip3oConfig, data: DataConfig) -> None:
        super().check(model, data)
        if not isinstance(model.drawing.head, DiTConfig):
            raise ValueError("model.drawing.head: flow matching needs a DiT; give a DiTConfig, or FeatureRegression.")

    def shared(self, rows: DrawingBatch, key: Array) -> dict[str, Array]:
        return {"text_share": self._text_share(rows)} if self.text_weight else {}

    def _text_share(self, rows: DrawingBatch) -> Float32[Array, ""]:
        """What each token of a batch adds to a sum that is divided by its images, so that text counts as a mean."""
        images, tokens = jnp.sum(targets_of(rows)), jnp.sum(rows.batch.loss_mask)
        # A batch without an image is divided by 1, so that its text is learned.
        return (self.text_weight * jnp.maximum(images, 1) / jnp.maximum(tokens, 1)).astype(jnp.float32)

    def loss(
        self,
        model: Blip3oConfig,
        params: Params,
        reference: Params | None,
        rows: DrawingBatch,
        key: Array,
        freeze: tuple[str, ...],
        text_share: Float32[Array, ""] | None = None,
    ) -> tuple[Sum, dict[str, Sum]]:
        """Random draws come from the rows, not from `key`: packing, hosts and restarts change none."""
        hidden = blip3o.states(VLM(model, trains_vision(freeze)), params, rows, has_images=self.reads_images)
        items = self._items(model, params, rows, hidden, self.draws)
        flow = Sum(jnp.sum(items.values["loss"]), jnp.sum(items.weight))
        if not self.text_weight:
            return flow, {}
        text = text_loss(model, params, rows, hidden, self.chunk)
        share = self._text_share(rows) if text_share is None else text_share
        return Sum(flow.total + share * text.total, flow.weight), {"flow": flow, "text": text}

    def items(
        self, model: Blip3oConfig, params: Params, reference: Params | None, rows: DrawingBatch, freeze: tuple[str, ...]
    ) -> Items:
        """The images to draw; noise and sigma are those of their keys, the same each time."""
        hidden = blip3o.states(VLM(model, trains_vision(freeze)), params, rows, has_images=self.reads_images)
        return self._items(model, params, rows, hidden, self.draws)

    def _items(
        self, model: Blip3oConfig, params: Params, rows: DrawingBatch, hidden: Float[Array, "B T D"], draws: int
    ) -> Items:
        states = flat(blip3o.at_queries(hidden, rows, model.drawing.queries))
        raw = drawing_features.raw_features(model, params, flat(rows.target_pixels))
        features = drawing_features.normalised(model, params, raw)
        features, states = (jnp.repeat(x, draws, axis=0) for x in (features, states))
        losses = flow_losses(model, params, draw(features, target_keys(rows, draws), self.drop), states)
        losses = jnp.mean(losses.reshape(*rows.target_segment.shape, draws), axis=-1)
        return drawn_items(rows, losses)


def text_loss(
    model: Blip3oConfig, params: Params, rows: DrawingBatch, hidden: Float[Array, "B T D"], chunk: int
) -> Sum:
    """Cross entropy of the supervised tokens, of states that are there already."""
    batch, vlm = rows.batch, VLM(model)
    log_probs = token_log_probs(
        lambda states: vlm.apply({"params": params}, states, method="logits"),
        hidden, batch.token_ids, batch.loss_mask, chunk,
    )  # fmt: skip
    return Sum(-jnp.sum(log_probs), jnp.sum(batch.loss_mask).astype(jnp.float32))
