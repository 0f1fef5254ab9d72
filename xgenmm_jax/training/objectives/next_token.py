"""The objective of every stage but DPO: predict the supervised tokens of packed rows."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from xgenmm_jax.batch import Batch
from xgenmm_jax.models.blip3 import VLM, VLMConfig
from xgenmm_jax.training.objectives.base import Items, Params, Sum
from xgenmm_jax.training.objectives.packed_rows import (
    PackedRows,
    batch_log_probs,
    check_chunk,
    training_streams,
    trains_vision,
)


@dataclass(frozen=True)
class NextToken(PackedRows):
    """Cross entropy averaged over the supervised tokens of the global batch (the official code averages per device).

    chunk: positions of a row that go through the head at once; less is less memory.
    """

    has_perplexity: ClassVar[bool] = True

    chunk: int = 64

    def __post_init__(self):
        check_chunk(self.chunk)

    def shared(self, rows: Batch, key: Array) -> dict[str, Array]:
        return {"step_key": key}

    def loss(
        self,
        model: VLMConfig,
        params: Params,
        reference: Params | None,
        rows: Batch,
        key: Array,
        freeze: tuple[str, ...],
        step_key: Array | None = None,
    ) -> tuple[Sum, dict[str, Sum]]:
        vlm, streams = VLM(model, trains_vision(freeze)), training_streams(model, params, key, step_key)
        return cross_entropy(batch_log_probs(vlm, params, rows, self.chunk, streams=streams), rows), {}

    def items(
        self, model: VLMConfig, params: Params, reference: Params | None, rows: Batch, freeze: tuple[str, ...]
    ) -> Items:
        """The supervised tokens."""
        vlm = VLM(model, trains_vision(freeze))
        log_probs = batch_log_probs(vlm, params, rows, self.chunk)
        return Items({"loss": -log_probs}, rows.loss_mask.astype(jnp.float32), rows.segment_ids)


def cross_entropy(log_probs: Float[Array, "B T"], batch: Batch) -> Sum:
    """Of the supervised tokens, whose log-probabilities are given."""
    return Sum(-jnp.sum(log_probs), jnp.sum(batch.loss_mask).astype(jnp.float32))
