"""The objective of every stage but DPO: predict the supervised tokens of packed rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import functools

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data import pipeline
from xgenmm_jax.data.order import State
from xgenmm_jax.data.pipeline import DataConfig
from xgenmm_jax.data.tokenizer import Tokenizer
from xgenmm_jax.models.grouping import Sampling
from xgenmm_jax.models.vlm import VLM, VLMConfig, initialize, splice
from xgenmm_jax.training.losses import token_log_probs
from xgenmm_jax.training.objective import Objective, Params, Size, Sum


@dataclass(frozen=True)
class NextToken:
    """Cross entropy averaged over the supervised tokens of the global batch (the official code averages per device).

    chunk: positions of a row that go through the head at once; less is less memory.
    """

    chunk: int = 64

    def __post_init__(self):
        check_chunk(self.chunk)

    def objective(self, model: VLMConfig, data: DataConfig) -> Objective:
        check_sampling(model, data)
        return Objective(
            init=functools.partial(initialize, model),
            loss=functools.partial(_loss, model, self.chunk),
            batches=functools.partial(row_batches, model, data),
            size=row_size,
        )


def check_chunk(chunk: int) -> None:
    """Raises ValueError for a loss over chunks of no position."""
    if chunk < 1:
        raise ValueError(f"loss.chunk: got {chunk}, wanted at least 1.")


def check_sampling(model: VLMConfig, data: DataConfig) -> None:
    """Raises ValueError where rows lay out other vision tokens than the model makes, or more crops than it reads."""
    per = "image" if model.sampling is Sampling.FIXED_SAMPLING else "crop"
    if data.row.vision_tokens_per != per:
        raise ValueError(
            f"data.row.vision_tokens_per: got '{data.row.vision_tokens_per}', and with model.sampling "
            f"'{model.sampling.value}' the resampler's tokens are those of one {per}; make it '{per}'."
        )
    model.check_crops(data.anyres.max_crops, "data.anyres cuts a picture into up to")


def row_batches(
    model: VLMConfig, data: DataConfig, seed: int, state: State, host_index: int, host_count: int
) -> Iterator[tuple[Batch, list[str], State]]:
    """Packed rows. Raises ValueError where tokenizer, pictures or vision tokens are not those of the model."""
    ids, logits = len(Tokenizer.load(data.tokenizer)), model.decoder.logits
    fits = [
        ("tokenizer's ids", ids, "model.decoder's logits", logits),
        ("data.row.vision_tokens", data.row.vision_tokens, "model's vision tokens a group", model.tokens_per_group),
        ("data.anyres.view_px", data.anyres.view_px, "model.vision.image_size_px", model.vision.image_size_px),
        ("data.anyres.view_cells", data.anyres.view_cells, "model.vision's patches a side", model.vision.grid),
    ]
    for name, got, wanted_name, wanted in fits:
        if got != wanted and not (name.startswith("data.") and _without_pictures(data)):
            raise ValueError(f"{name}: got {got}, {wanted_name}: {wanted}; make them equal.")
    return pipeline.batches(data, seed, state, host_index, host_count)


def _without_pictures(data: DataConfig) -> bool:
    return data.row.crops == 0


def row_size(batch: Batch) -> Size:
    """Samples, tokens and places of packed rows (numpy)."""
    is_filled = np.asarray(batch.segment_ids) > 0
    samples = is_filled & (np.asarray(batch.positions) == 0)  # a segment may be missing between others
    return Size(int(samples.sum()), int(is_filled.sum()), is_filled.size)


def batch_log_probs(
    model: VLMConfig, params: Params, batch: Batch, chunk: int, features: Float[Array, "B C P E"] | None = None
) -> Float[Array, "B T"]:
    """Log-probability of every supervised token of packed rows, 0 elsewhere; float32.

    features: the tower's, where they are known already.
    """
    if features is None:
        return _log_probs(model, params, batch, chunk, lambda vlm: vlm.hidden(batch))
    return log_probs_with_images(model, params, batch, chunk, lambda vlm: vlm.connect(features, batch))


def log_probs_with_images(
    model: VLMConfig, params: Params, batch: Batch, chunk: int, images: Callable[[VLM], Float[Array, "B M D"]]
) -> Float[Array, "B T"]:
    """As `batch_log_probs`, with vision tokens that `images` makes."""

    def hidden(vlm: VLM) -> Float[Array, "B T D"]:
        text = vlm.decoder.embed(batch.token_ids)
        embeddings = splice(text, images(vlm), batch.slot)
        return vlm.decoder.hidden(embeddings, batch.segment_ids, batch.positions)

    return _log_probs(model, params, batch, chunk, hidden)


def _log_probs(
    model: VLMConfig, params: Params, batch: Batch, chunk: int, hidden: Callable[[VLM], Float[Array, "B T D"]]
) -> Float[Array, "B T"]:
    vlm = VLM(model)
    variables = {"params": params}
    return token_log_probs(
        lambda states: vlm.apply(variables, states, method="logits"),
        vlm.apply(variables, method=hidden),
        batch.token_ids,
        batch.loss_mask,
        chunk,
    )


def mean_loss(log_probs: Float[Array, "B T"], batch: Batch) -> Sum:
    """Cross entropy over the supervised tokens."""
    return Sum(-jnp.sum(log_probs), jnp.sum(batch.loss_mask).astype(jnp.float32))


def _loss(
    model: VLMConfig, chunk: int, params: Params, reference: Params | None, batch: Batch, key: Array
) -> tuple[Sum, dict[str, Sum]]:
    return mean_loss(batch_log_probs(model, params, batch, chunk), batch), {}
