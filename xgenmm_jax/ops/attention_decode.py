"""Attention of one new token a row over a cache, on an NVIDIA GPU: one kernel where XLA needs seven.

At batch 1 a decoding step is some hundred kernels of microseconds, so their number is what it costs; at larger batches
the cache is read once, in the layout that it has. Source: as `attention_triton.py`, with sums of products in place of
tensor cores, which want 16 queries.
"""

import functools

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xgenmm_jax.ops.triton_kernels import HIDDEN, LOG2_E, load_parts, padded_width, store_parts, zero_parts

MOST_STEP = 128
"""Keys that a program takes at a time."""
MOST_GROUP = 8
"""Query heads of one key-value head that a program serves, a power of two."""


def is_possible(group: int, keys: int) -> bool:
    """Whether the kernel takes so many query heads a key-value head and a cache of so many tokens."""
    return group <= MOST_GROUP and group & (group - 1) == 0 and keys % 16 == 0


def decode_attention(
    query: Float[Array, "B 1 N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "B 1 S"],
    *,
    interpret: bool = False,
) -> Float[Array, "B 1 N H"]:
    """softmax(query key^T / sqrt(H)) value over the keys where `mask` is True; 0 where none is.

    Scores and sums are float32. S must be a multiple of 16. No gradient. interpret: run on a CPU.
    """
    batch, _, heads, width = query.shape
    keys, kv_heads = key.shape[1:3]
    group = heads // kv_heads
    step = min(MOST_STEP, keys & -keys)
    padded = padded_width(width)
    heads_of = pl.BlockSpec((None, None, group, padded), lambda k, b: (b, k, 0, 0))
    cached = pl.BlockSpec((None, keys, None, padded), lambda k, b: (b, 0, k, 0))
    context = pl.pallas_call(
        functools.partial(_kernel, width=width, step=step),
        grid=(kv_heads, batch),
        in_specs=[heads_of, cached, cached, pl.BlockSpec((None, keys), lambda k, b: (b, 0))],
        out_specs=heads_of,
        out_shape=jax.ShapeDtypeStruct((batch, kv_heads, group, width), value.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name="decode_attention",
    )(query.reshape(batch, kv_heads, group, width), key, value, mask[:, 0].astype(jnp.int32))
    return context.reshape(query.shape)


def _kernel(query_ref, key_ref, value_ref, mask_ref, context_ref, *, width: int, step: int):
    group = query_ref.shape[0]
    query = tuple(part.astype(jnp.float32) for part in load_parts(query_ref, (pl.ds(0, group),), width))
    scale = width**-0.5 * LOG2_E

    def body(number, carry):
        context, largest, total = carry
        rows = pl.ds(number * step, step)
        mask = (mask_ref[rows] > 0)[None, :]
        key = load_parts(key_ref, (rows,), width)
        scores = sum(_sum_of_products(a, b) for a, b in zip(query, key, strict=True)) * scale
        scores = jnp.where(mask, scores, HIDDEN)
        new_largest = jnp.maximum(largest, jnp.max(scores, axis=-1))
        weights = jnp.where(mask, jnp.exp2(scores - new_largest[:, None]), 0.0)
        shrink = jnp.exp2(largest - new_largest)
        value = load_parts(value_ref, (rows,), width)
        context = tuple(
            old * shrink[:, None] + jnp.sum(weights[:, :, None] * new.astype(jnp.float32)[None], axis=1)
            for old, new in zip(context, value, strict=True)
        )
        return context, new_largest, total * shrink + jnp.sum(weights, axis=-1)

    start = (zero_parts(group, width), jnp.full((group,), HIDDEN, jnp.float32), jnp.zeros((group,), jnp.float32))
    context, _, total = jax.lax.fori_loop(0, mask_ref.shape[0] // step, body, start)
    total = jnp.where(total > 0, total, 1.0)
    store_parts(context_ref, tuple(part / total[:, None] for part in context), width)


def _sum_of_products(query, key):
    """[g h] and [s h] to [g s]."""
    return jnp.sum(query[:, None] * key.astype(jnp.float32)[None], axis=-1)
