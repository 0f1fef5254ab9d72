"""What a run learns, as the loop sees it. Next tokens, preferences, pictures in words and the tower's pre-training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from xgenmm_jax.data.order import State

Params = Any
"""Nested dicts of arrays."""

Rows = Any
"""A NamedTuple of arrays whose first axis is rows: `Batch`, or `TowerBatch`."""


class Sum(NamedTuple):
    """A sum and what divides it. Micro-batches and devices add both, so the average is over the global batch."""

    total: Float[Array, ""]
    weight: Float[Array, ""]


class Size(NamedTuple):
    """What a batch holds, counted on the host."""

    samples: int
    tokens: int  # positions that are not padding
    places: int  # positions, padding too: tokens / places is the fill


@dataclass(frozen=True)
class Objective:
    """Functions that define a run.

    init: key -> parameters boxed with logical axis names; also under `jax.eval_shape`.
    loss: (params, reference, rows, key) -> (loss, further metrics); the loss's total is differentiated.
    batches: (seed, state, host_index, host_count) -> endless (rows of numpy arrays, ids of their samples, state after);
        ids that are `data.skips.SampleIds` say what was left out.
    size: counts a batch.
    reference: whether `loss` wants the starting values of the trained parameters (None elsewhere) beside them.
    """

    init: Callable[[Array], Params]
    loss: Callable[[Params, Params | None, Rows, Array], tuple[Sum, dict[str, Sum]]]
    batches: Callable[[int, State, int, int], Iterator[tuple[Rows, list[str], State]]]
    size: Callable[[Rows], Size]
    reference: bool = False
