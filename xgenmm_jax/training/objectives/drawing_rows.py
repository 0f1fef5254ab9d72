"""What the objectives on captions to draw share: parameters, rows, features of the images, their statistics."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Key
import numpy as np

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.data.readers.to_draw import DrawingPrompt, ToDraw
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.models import blip3o, drawing_features
from xgenmm_jax.models.blip3o import Blip3oConfig
from xgenmm_jax.models.drawing_flops import drawing_flops
from xgenmm_jax.models.layers import shard_batch
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.training.objectives.base import Counts, Params
from xgenmm_jax.training.objectives.packed_rows import PackedRows

STATISTICS_IMAGES = 2048
"""Images that a run measures the features' mean and variance on, the first of its data."""


class DrawingRows(PackedRows):
    """An objective of a Blip3oConfig on a DataConfig with a `target_px`; subclasses have the loss."""

    @property
    def reads_images(self) -> bool:
        """Whether rows may hold samples with images to understand."""
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
        moments = None
        total, images = np.zeros((2, model.target_channels), np.float64), 0
        while images < STATISTICS_IMAGES:
            rows = next(batches)
            if moments is None:
                # The same numbers on every host: sums over all of them.
                laid_out = jax.tree.leaves(rows)[0].sharding
                out = NamedSharding(laid_out.mesh, PartitionSpec()) if isinstance(laid_out, NamedSharding) else None
                moments = jax.jit(lambda params, rows: feature_moments(model, params, rows), out_shardings=out)
            sums, count = jax.device_get(moments(params, rows))
            total, images = total + sums, images + int(count)
        cells = images * model.target_side**2
        mean = total[0] / cells
        std = np.sqrt(np.maximum(total[1] / cells - mean**2, 0))
        # A channel that never changes carries nothing: it is left as it is.
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1), std, 1.0)
        target = dict(params["target"])
        for name, value in (("mean", mean), ("std", std)):
            target[name] = jax.device_put(value.astype(np.float32), target[name].sharding)
        return {**params, "target": target}

    def batches(
        self, model: Blip3oConfig, data: DataConfig, seed: int, state: State, host_index: int, host_count: int
    ) -> Iterator[tuple[DrawingBatch, list[str], State]]:
        """Raises ValueError, as of `PackedRows`, and at rows with images to understand where the loss reads none."""
        opened = super().batches(model, data, seed, state, host_index, host_count)
        try:
            for rows, ids, after in opened:
                if not self.reads_images and (rows.batch.slot >= 0).any():
                    raise ValueError(
                        f"data: samples with images to understand are in the mixture ({ids[0][:80]}), and "
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
        return drawing_flops(model, rows, freeze)


def prompt_of(source: object) -> DrawingPrompt | None:
    """How a source asks for its captions; None of one that gives no captions to draw, or does not say."""
    while isinstance(source, Mapped):
        if isinstance(source.change, DrawingPrompt):
            return source.change
        source = source.source
    reader = getattr(source, "reader", None)
    return reader.prompt if isinstance(reader, ToDraw) else None


def feature_moments(
    model: Blip3oConfig, params: Params, rows: DrawingBatch
) -> tuple[Float32[Array, "2 C"], Float32[Array, ""]]:
    """Sums of features and of their squares over the cells of all images, and how many images there are."""
    is_target = targets_of(rows)
    raw = drawing_features.raw_features(model, params, flat(rows.target_pixels))
    raw = jnp.where(is_target.reshape(-1, 1, 1, 1), raw, 0.0)
    sums = jnp.stack([jnp.sum(raw, axis=(0, 1, 2)), jnp.sum(raw**2, axis=(0, 1, 2))])
    return sums, jnp.sum(is_target, dtype=jnp.float32)


def targets_of(rows: DrawingBatch) -> Bool[Array, "B J"]:
    """Where there is an image to draw."""
    return rows.target_segment > 0


def flat(x: Array) -> Array:
    """[B J ...] -> [B*J ...], split over devices as rows are."""
    return shard_batch(x.reshape(-1, *x.shape[2:]))


def target_keys(rows: DrawingBatch, draws: int) -> Key[Array, " n"]:
    """Keys of the random draws about each image, `draws` of each in turn. Functions of run and record alone."""
    keys = jax.random.wrap_key_data(flat(rows.target_seed), impl="threefry2x32")
    each = jax.vmap(lambda key: jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(draws)))(keys)
    return each.reshape(-1)
