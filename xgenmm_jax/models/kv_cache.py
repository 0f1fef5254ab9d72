"""The decoder's key-value cache: an empty one, its sharding, and its layers by themselves for loops over tokens.

`Phi3.extend` writes into it.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, PyTree

from xgenmm_jax.models.layers import Dtype
from xgenmm_jax.ops.partitioning import constrain


@runtime_checkable
class DecoderSizes(Protocol):
    """What a cache's shape follows from: a decoder's config."""

    layers: int
    kv_heads: int
    head_width: int


class Cache(NamedTuple):
    """Keys and values of the tokens so far. Every leaf carries the batch on axis 1, so rows can be reordered.

    After `unstack_layers`, while tokens are written one by one, keys and values are tuples of L arrays [1 B S K H].
    """

    key: Float[Array, "L B S K H"]
    """Already rotated."""
    value: Float[Array, "L B S K H"]
    segment_ids: Int32[Array, "1 B S"]
    """0: no token (left padding, or not written yet)."""
    positions: Int32[Array, "1 B S"]


AXES = Cache(
    key=("layers", "batch", None, "heads", "kv"),
    value=("layers", "batch", None, "heads", "kv"),
    segment_ids=(None, "batch", None),
    positions=(None, "batch", None),
)
"""Logical axes of a cache's leaves: rows and key-value heads are sharded, where they divide."""


def empty_cache(decoder: DecoderSizes, batch: int, capacity: int, dtype: Dtype) -> Cache:
    """A cache with room for `capacity` tokens in each of `batch` rows."""
    shape = (decoder.layers, batch, capacity, decoder.kv_heads, decoder.head_width)
    zeros = jnp.zeros((1, batch, capacity), jnp.int32)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), zeros, zeros)


def sharded(cache: Cache) -> Cache:
    """The cache with the sharding of `AXES`, of layers stacked or in tuples; for use under jit."""

    def shard(leaves: PyTree, names: tuple[str | None, ...]) -> PyTree:
        return jax.tree.map(lambda leaf: constrain(leaf, names), leaves)

    return Cache(*map(shard, cache, AXES))


def unstack_layers(params: Any, cache: Cache) -> tuple[tuple[Any, ...], Cache]:
    """Each layer's parameters and cache by themselves, from the decoder's params and a stacked cache.

    A loop over tokens that reads stacked layers copies each before it multiplies: three times the memory traffic.
    """
    count = cache.key.shape[0]
    layers = tuple(jax.tree.map(lambda leaf, n=n: leaf[n], params["layers"]) for n in range(count))
    keys, values = (tuple(leaf[n : n + 1] for n in range(count)) for leaf in (cache.key, cache.value))
    return layers, cache._replace(key=keys, value=values)
