"""Direct preference optimisation on packed pairs, against a frozen reference.

Source: arXiv 2305.18290; the term on the chosen answer: arXiv 2404.19733, eq. 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from xgenmm_jax.batch import Batch
from xgenmm_jax.models.blip3 import VLM, VLMConfig
from xgenmm_jax.models.lora import without_updates
from xgenmm_jax.training.objectives.base import Items, Params, Sum
from xgenmm_jax.training.objectives.losses import pair_sums, preference_loss
from xgenmm_jax.training.objectives.packed_rows import (
    NO_STREAMS,
    PackedRows,
    batch_log_probs,
    check_chunk,
    training_streams,
    trains_vision,
)
from xgenmm_jax.training.optimizer import merge


@dataclass(frozen=True)
class DPO(PackedRows):
    """Chosen and rejected answer of pair k are segments 2k + 1 and 2k + 2 of one row and share its vision tokens.

    The reference is the run's starting point, kept in its folder (`references.py`). Only the trained parameters exist
    twice; the frozen ones serve both. Of low-rank updates the base without them is the reference, and nothing is kept.

    beta: how fast a preference saturates.
    chosen_weight: weight of the chosen answer's mean negative log-probability beside the preference; 0: DPO alone.
    """

    needs_reference: ClassVar[bool] = True

    beta: float = 0.1
    chosen_weight: float = 0.0
    chunk: int = 64

    def __post_init__(self):
        if not 0 < self.beta < math.inf:
            raise ValueError(f"objective.beta: got {self.beta}, wanted a finite number above 0, 0.1.")
        if not 0 <= self.chosen_weight < math.inf:
            raise ValueError(f"objective.chosen_weight: got {self.chosen_weight}, wanted a finite number, 0 or more.")
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
        """Average over the pairs of the global batch."""
        streams = training_streams(model, params, key, step_key)
        items = self.items(model, params, reference, rows, freeze, streams)
        pairs = jnp.sum(items.weight)
        sums = {name: Sum(jnp.sum(values), pairs) for name, values in items.values.items()}
        return sums.pop("loss"), sums

    def items(
        self,
        model: VLMConfig,
        params: Params,
        reference: Params | None,
        rows: Batch,
        freeze: tuple[str, ...],
        streams: Mapping[str, Array] = NO_STREAMS,
    ) -> Items:
        """The pairs. streams: of random numbers in training, for the policy."""
        vlm = VLM(model, trains_vision(freeze))
        features = None
        if not vlm.trains_vision and rows.pixels.shape[1]:
            features = vlm.apply({"params": params}, rows, method="features")  # one pass serves both
        # Log-probabilities of every token under the policy and under the reference.
        log_probs = batch_log_probs(vlm, params, rows, self.chunk, features, streams)
        # `reference` lacks the frozen parameters: those of the policy serve it. Nor has it low-rank updates.
        reference_params = params if reference is None else merge(reference, params)
        reference_params = jax.lax.stop_gradient(without_updates(reference_params))
        reference_log_probs = batch_log_probs(vlm, reference_params, rows, self.chunk, features)

        # Sums over both answers of each pair; a row's unused pairs have no tokens and do not count.
        chosen, rejected = pair_sums(log_probs, rows.segment_ids)
        reference_chosen, reference_rejected = pair_sums(reference_log_probs, rows.segment_ids)
        chosen_tokens, rejected_tokens = pair_sums(rows.loss_mask.astype(jnp.float32), rows.segment_ids)
        is_pair = (chosen_tokens > 0) & (rejected_tokens > 0)

        # The preference loss, and the likelihood of the chosen answer per token.
        losses = preference_loss(chosen - rejected, reference_chosen - reference_rejected, self.beta)
        losses = losses - self.chosen_weight * chosen / jnp.maximum(chosen_tokens, 1)

        # Implicit rewards, to be looked at.
        reward_chosen = self.beta * (chosen - reference_chosen)
        reward_rejected = self.beta * (rejected - reference_rejected)
        values = {
            "loss": losses,
            "preferred": (reward_chosen > reward_rejected).astype(jnp.float32),
            "reward_chosen": reward_chosen,
            "reward_rejected": reward_rejected,
        }
        # Pair k is segments 2k + 1 and 2k + 2; a pair counts for the segment of its chosen answer.
        segment_ids = jnp.broadcast_to(2 * jnp.arange(is_pair.shape[1], dtype=jnp.int32) + 1, is_pair.shape)
        of_pairs = {name: jnp.where(is_pair, value, 0.0) for name, value in values.items()}
        return Items(of_pairs, is_pair.astype(jnp.float32), segment_ids)
