"""Dropout whose draws follow from the step and from what a row holds, not from the row's place.

So a row's states in training are the same alone and among others, in any order and micro-batch, on any devices. Rows
are told by checksums of their images and tokens (`checksums`, `joined`); the step's key is the stream STREAM of
`apply`, without which nothing is dropped. Low-rank updates drop by place and have a stream of their own
(`lora.STREAM`).
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, UInt32

STREAM = "row_dropout"
Draws = UInt32[Array, " n"] | None
"""Each row's number, which its draws follow from; None: nothing is dropped."""
_FACTOR, _STEP = 0x9E3779B1, 0x85EBCA77
"""Odd, so that multiplying by them loses nothing of 32 bits."""


def checksums(values: Integer[Array, "n ..."] | Float[Array, "n ..."]) -> UInt32[Array, " n"]:
    """A number for each row, equal where all of its values are: a sum of 32-bit products, in which order is of no
    matter to the result and every place has a factor of its own. Floats count by their bits."""
    rows = values.reshape(len(values), -1)
    if jnp.issubdtype(rows.dtype, jnp.floating):
        rows = jax.lax.bitcast_convert_type(rows.astype(jnp.float32), jnp.uint32)
    rows = _mixed(rows.astype(jnp.uint32) + jnp.uint32(1))
    factors = _mixed(jnp.arange(rows.shape[1], dtype=jnp.uint32) + jnp.uint32(1)) | jnp.uint32(1)
    return jnp.sum(rows * factors[None], axis=1, dtype=jnp.uint32)


def joined(first: UInt32[Array, "*n"], second: UInt32[Array, "*n"] | int) -> UInt32[Array, "*n"]:
    """One number of two, in their order."""
    second = second if isinstance(second, jax.Array) else jnp.full_like(first, second)
    return _mixed(_mixed(first) * jnp.uint32(_STEP) + second)


def drop(module: nn.Module, x: Float[Array, "n ..."], share: float, rows: Draws) -> Float[Array, "n ..."]:
    """`x` with a share of its values set to 0 and the others as much larger; unchanged where rows is None.

    rows: whose draws each row takes. module: which layer's.
    """
    if rows is None or not share:
        return x
    key = module.make_rng(STREAM)

    def is_kept(row: UInt32[Array, ""]) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, row), 1 - share, x.shape[1:])

    return jnp.where(jax.vmap(is_kept)(rows), x / (1 - share), 0).astype(x.dtype)


def _mixed(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """Each number as another one, all bits of which follow from all of its own."""
    x = (x ^ (x >> 16)) * jnp.uint32(_FACTOR)
    x = (x ^ (x >> 15)) * jnp.uint32(_STEP)
    return x ^ (x >> 16)
