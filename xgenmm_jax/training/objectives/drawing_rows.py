"""What the objectives on captions to draw share: parameters, rows, features of the images, their statistics."""

from collections.abc import Callable, Iterator
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Key, UInt8
import numpy as np

from xgenmm_jax.batch import ArrayLike, DrawingBatch
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.data.to_draw import DrawingPrompt, ToDraw
from xgenmm_jax.models import blip3o, drawing_features
from xgenmm_jax.models.blip3o import Blip3oConfig
from xgenmm_jax.models.drawing_flops import drawing_flops, images_of
from xgenmm_jax.models.flops import Flops, Workload, workload_of
from xgenmm_jax.models.layers import shard_batch
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.training.objectives.base import Counts, Items, Params, Sum
from xgenmm_jax.training.objectives.packed_rows import PackedRows

STATISTICS_IMAGES = 2048
"""Images that a run measures the features' mean and variance on, the first of its data."""
WITHOUT_IMAGES = 100
"""Batches in a row without an image to draw, after which a run does not wait for one."""


class DrawingRows(PackedRows):
    """An objective of a Blip3oConfig on a DataConfig with a `target_px`; subclasses have the loss."""

    learns_drawing: ClassVar[bool] = True

    @property
    def reads_images(self) -> bool:
        """Whether rows may hold samples to understand, which may have images."""
        return False

    def check(self, model: Blip3oConfig, data: DataConfig) -> None:
        """Raises ValueError where the model does not draw, or rows ask for other queries, words or images than it."""
        if not isinstance(model, Blip3oConfig):
            raise ValueError(f"model: got a {type(model).__name__}, which does not draw; give a Blip3oConfig.")
        super().check(model, data)
        if data.target_px != model.target_px:
            raise ValueError(
                f"data.target_px: got {data.target_px}, the model draws features of images of {model.target_px} px a "
                "side; make them equal."
            )
        for source, _ in data.mixture:
            prompt = prompt_of(source)
            if prompt is not None and prompt.queries != model.drawing.queries:
                raise ValueError(
                    f"data: a source asks with {prompt.queries} queries (DrawingPrompt), the model has "
                    f"{model.drawing.queries} (model.drawing.queries); make them equal."
                )

    def init(self, model: Blip3oConfig, key: Array) -> Params:
        return blip3o.initialize(model, key)

    def prepare(self, model: Blip3oConfig, params: Params, batches: Iterator[DrawingBatch]) -> Params:
        """The parameters with the features' statistics, of the first images of the data; as they are where known."""
        if drawing_features.has_statistics(model, params):
            return params
        return with_statistics(params, "target", functools.partial(drawing_features.raw_features, model), batches)

    def loss(
        self,
        model: Blip3oConfig,
        params: Params,
        reference: Params | None,
        rows: DrawingBatch,
        key: Array,
        freeze: tuple[str, ...],
    ) -> tuple[Sum, dict[str, Sum]]:
        """Averaged over the images of the global batch. Random draws come from the rows, not from `key`."""
        items = self.items(model, params, reference, rows, freeze)
        return Sum(jnp.sum(items.values["loss"]), jnp.sum(items.weight)), {}

    def batches(
        self, model: Blip3oConfig, data: DataConfig, seed: int, state: State, host_index: int, host_count: int
    ) -> Iterator[tuple[DrawingBatch, list[str], State]]:
        """Raises ValueError, as of `PackedRows`, and at rows with samples to understand where the loss reads none."""
        opened = super().batches(model, data, seed, state, host_index, host_count)
        try:
            for rows, ids, after in opened:
                # Captions to draw supervise no token; all else that is trained on does.
                has_others = rows.batch.loss_mask.any(axis=1)
                if not self.reads_images and has_others.any():
                    row = ids[has_others.argmax()][:300]
                    raise ValueError(
                        f"data: samples to understand are in the mixture (in the row of {row}), and "
                        f"{type(self).__name__} reads captions to draw alone; leave them out, or give FlowMatching a "
                        "text_weight."
                    )
                yield rows, ids, after
        finally:
            opened.close()

    def count(self, rows: DrawingBatch) -> Counts:
        return super().count(rows.batch)

    def flops(
        self, model: Blip3oConfig, rows: DrawingBatch, freeze: tuple[str, ...], lora: LoRA | None = None
    ) -> float:
        return self.work(model, workload_of(rows.batch, model), images_of(rows), freeze).total

    def work(self, model: Blip3oConfig, load: Workload, images: int, freeze: tuple[str, ...]) -> Flops:
        """Model FLOPs of a step. images: to draw."""
        return drawing_flops(model, load, images, freeze)


def prompt_of(source: object) -> DrawingPrompt | None:
    """How a source asks for its captions; None of one that gives no captions to draw, or does not say."""
    while isinstance(source, Mapped):
        if isinstance(source.change, DrawingPrompt):
            return source.change
        source = source.source
    reader = getattr(source, "reader", None)
    return reader.prompt if isinstance(reader, ToDraw) else None


Raw = Callable[[Params, UInt8[Array, "n h w 3"]], Float32[Array, "n g g C"]]
"""Parameters and images to what is scaled: a tower's features, or latents."""


class Moments(NamedTuple):
    """Of features by channel, over the cells of so many images."""

    mean: Float[ArrayLike, " C"]
    spread: Float[ArrayLike, " C"]
    """The sum of squared differences from the mean."""
    cells: Float[ArrayLike, ""]
    images: Float[ArrayLike, ""]


def with_statistics(params: Params, part: str, raw: Raw, batches: Iterator[DrawingBatch]) -> Params:
    """The parameters with `mean` and `std` of a part by channel, over the next STATISTICS_IMAGES images.

    Raises ValueError where WITHOUT_IMAGES batches in a row have no image to draw.
    """
    measure, waited = None, 0
    zeros = np.zeros(params[part]["mean"].shape, np.float64)
    known = Moments(zeros, zeros, np.float64(0), np.float64(0))
    while known.images < STATISTICS_IMAGES:
        rows = next(batches)
        if measure is None:
            # The same numbers on every host: sums over all of them.
            laid_out = jax.tree.leaves(rows)[0].sharding
            out = NamedSharding(laid_out.mesh, PartitionSpec()) if isinstance(laid_out, NamedSharding) else None
            measure = jax.jit(functools.partial(moments_of, raw), out_shardings=out)
        of_batch = Moments(*(np.asarray(value, np.float64) for value in jax.device_get(measure(params, rows))))
        waited = 0 if of_batch.images else waited + 1
        if waited == WITHOUT_IMAGES:
            raise ValueError(
                f"data: {waited} batches in a row have no image to draw, so that features cannot be measured; give the "
                "mixture captions to draw (Mapped(source, DrawingPrompt(...)), or a reader ToDraw(...))."
            )
        known = joined(known, of_batch)
    std = np.sqrt(known.spread / known.cells)
    # A channel that never changes carries nothing: it is left as it is.
    std = np.where(std > 1e-6 * np.maximum(np.abs(known.mean), 1), std, 1.0)
    measured = dict(params[part])
    for name, value in (("mean", known.mean), ("std", std)):
        measured[name] = jax.device_put(value.astype(np.float32), measured[name].sharding)
    return {**params, part: measured}


def moments_of(raw: Raw, params: Params, rows: DrawingBatch) -> Moments:
    """Of the images of a batch, float32. Around their own mean: the mean of squares less the square of the mean has no
    digits left where a channel is large and changes little."""
    is_target = targets_of(rows).reshape(-1, 1, 1, 1)
    features = jnp.where(is_target, raw(params, flat(rows.target_pixels)), 0.0)
    images = jnp.sum(is_target, dtype=jnp.float32)
    cells = images * features.shape[1] * features.shape[2]
    mean = jnp.sum(features, axis=(0, 1, 2)) / jnp.maximum(cells, 1)
    away = jnp.where(is_target, features - mean[None, None, None], 0.0)
    # What rounding left of the mean: without it a constant channel seems to change.
    rest = jnp.sum(away, axis=(0, 1, 2)) / jnp.maximum(cells, 1)
    spread = jnp.sum(jnp.square(jnp.where(is_target, away - rest[None, None, None], 0.0)), axis=(0, 1, 2))
    return Moments(mean + rest, spread, cells, images)


def joined(first: Moments, second: Moments) -> Moments:
    """Of both sets of images."""
    cells = first.cells + second.cells
    share = second.cells / max(cells, 1)
    offset = second.mean - first.mean
    spread = first.spread + second.spread + offset**2 * first.cells * share
    return Moments(first.mean + share * offset, spread, cells, first.images + second.images)


def targets_of(rows: DrawingBatch) -> Bool[Array, "B J"]:
    """Where there is an image to draw."""
    return rows.target_segment > 0


def drawn_items(rows: DrawingBatch, losses: Float32[Array, "B J"]) -> Items:
    """A loss of each image to draw."""
    is_target = targets_of(rows)
    return Items({"loss": jnp.where(is_target, losses, 0.0)}, is_target.astype(jnp.float32), rows.target_segment)


def flat(x: Array) -> Array:
    """[B J ...] -> [B*J ...], split over devices as rows are."""
    return shard_batch(x.reshape(-1, *x.shape[2:]))


def target_keys(rows: DrawingBatch, draws: int) -> Key[Array, " n"]:
    """Keys of the random draws about each image, `draws` of each in turn. Functions of run and record alone."""
    keys = jax.random.wrap_key_data(flat(rows.target_seed), impl="threefry2x32")
    each = jax.vmap(lambda key: jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(draws)))(keys)
    return each.reshape(-1)
