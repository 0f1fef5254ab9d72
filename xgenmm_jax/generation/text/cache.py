"""How keys and values of generation are sharded over a mesh."""

import jax
from jaxtyping import PyTree

from xgenmm_jax.models.kv_cache import Cache
from xgenmm_jax.ops.partitioning import constrain

AXES = Cache(
    key=("layers", "batch", None, "heads", "kv"),
    value=("layers", "batch", None, "heads", "kv"),
    segment_ids=(None, "batch", None),
    positions=(None, "batch", None),
)
"""Logical axes of a cache's leaves: rows and key-value heads are sharded, where they divide."""


def sharded(cache: Cache) -> Cache:
    """The cache with the sharding of `AXES`, of layers stacked or in tuples; for use under jit."""
    return Cache(*(_cut(leaves, names) for leaves, names in zip(cache, AXES, strict=True)))


def _cut(leaves: PyTree, names: tuple[str | None, ...]) -> PyTree:
    return jax.tree.map(lambda leaf: constrain(leaf, names), leaves)
