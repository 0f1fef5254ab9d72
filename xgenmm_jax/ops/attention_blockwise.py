"""Attention of long packed rows in XLA's own operations: block by block, without the blocks that the mask hides.

The softmax is updated with each block of keys, and the backward pass computes scores again from the sums that the
forward pass saves, as flash attention does (Dao 2023, arXiv:2307.08691): neither a mask nor scores of all pairs are in
memory at any time, and only blocks with visible pairs take time. It serves CPUs, where rows hold many samples.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from xgenmm_jax.ops.attention_xla import group_heads, ungroup_heads
from xgenmm_jax.ops.masks import causal_mask

BLOCK = 512
"""Positions of a block, a divisor of `attention_choice.LONG_ROW_MULTIPLE`. With 256 a row of one sample takes half as
long again."""

_LEAST = jnp.finfo(jnp.float32).min
"""Score of a hidden key. Not -inf: the softmax of a query without keys must not become NaN."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def blockwise_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segment_ids: Int32[Array, "B T"],
    positions: Int32[Array, "B T"],
    left: int | None,
) -> Float[Array, "B T N H"]:
    """As `xla_attention` with the mask that `causal_mask` gives. T is a multiple of BLOCK.

    Keys at higher indices of the row count as later, which holds for packed rows. The result of padding is finite, its
    gradients are 0.
    """
    return _forward(query, key, value, segment_ids, positions, left)[0]


def _forward(query, key, value, segment_ids, positions, left):
    batch, length, heads, width = query.shape
    kv_heads = key.shape[2]
    first = _first_blocks(segment_ids, positions, left)

    def of_block(number: Array) -> tuple[Float[Array, "B t N H"], Float[Array, "B K R 1"]]:
        query_BKRH = group_heads(_block(query, number) * width**-0.5, kv_heads)

        def add_block(key_block: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            largest, total, context = sums
            mask, scores = _scores(query_BKRH, key, segment_ids, positions, number, key_block, left)
            scores = jnp.where(mask, scores, _LEAST)
            now_largest = jnp.maximum(largest, scores.max(axis=-1, keepdims=True))
            weights, before = jnp.exp(scores - now_largest), jnp.exp(largest - now_largest)
            new = _einsum("BKRS,BSKH->BKRH", weights.astype(value.dtype), _block(value, key_block))
            return now_largest, total * before + weights.sum(axis=-1, keepdims=True), context * before + new

        zeros = jnp.zeros((*query_BKRH.shape[:3], 1), jnp.float32)
        start = zeros + _LEAST, zeros, jnp.zeros(query_BKRH.shape, jnp.float32)
        largest, total, context = jax.lax.fori_loop(first[number], number + 1, add_block, start)
        return ungroup_heads((context / total).astype(value.dtype), heads), largest + jnp.log(total)

    context, log_sums = jax.lax.map(of_block, jnp.arange(length // BLOCK))
    context = context.swapaxes(0, 1).reshape(query.shape)
    return context, (query, key, value, segment_ids, positions, context, log_sums)


def _backward(left, saved, grad):
    query, key, value, segment_ids, positions, context, log_sums = saved
    length, heads, width = query.shape[1:]
    kv_heads = key.shape[2]
    first = _first_blocks(segment_ids, positions, left)

    def of_block(grads: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], Float[Array, "B t N H"]]:
        query_BKRH = group_heads(_block(query, number) * width**-0.5, kv_heads)
        grad_BKRH, context_BKRH = (group_heads(_block(x, number), kv_heads) for x in (grad, context))
        mean = jnp.sum(grad_BKRH.astype(jnp.float32) * context_BKRH, axis=-1, keepdims=True)

        def add_block(key_block: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            grad_query, grad_key, grad_value = sums
            keys, values = _block(key, key_block), _block(value, key_block)
            mask, scores = _scores(query_BKRH, key, segment_ids, positions, number, key_block, left)
            weights = jnp.where(mask, jnp.exp(scores - log_sums[number]), 0.0)
            grad_scores = weights * (_einsum("BKRH,BSKH->BKRS", grad_BKRH, values) - mean)
            weights, grad_scores = weights.astype(value.dtype), grad_scores.astype(value.dtype)
            return (
                grad_query + _einsum("BKRS,BSKH->BKRH", grad_scores, keys),
                _add(grad_key, key_block, _einsum("BKRS,BKRH->BSKH", grad_scores, query_BKRH)),
                _add(grad_value, key_block, _einsum("BKRS,BKRH->BSKH", weights, grad_BKRH)),
            )

        start = jnp.zeros(query_BKRH.shape, jnp.float32)
        grad_query, *grads = jax.lax.fori_loop(first[number], number + 1, add_block, (start, *grads))
        return tuple(grads), ungroup_heads(grad_query * width**-0.5, heads)

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (key, value))
    (grad_key, grad_value), grad_query = jax.lax.scan(of_block, start, jnp.arange(length // BLOCK))
    grad_query = grad_query.swapaxes(0, 1).reshape(query.shape)
    return grad_query.astype(query.dtype), grad_key.astype(key.dtype), grad_value.astype(value.dtype), None, None


blockwise_attention.defvjp(_forward, _backward)


def _first_blocks(
    segment_ids: Int32[Array, "B T"], positions: Int32[Array, "B T"], left: int | None
) -> Int32[Array, " n"]:
    """For each block of queries the first block of keys that it may attend to in any row; the same block if none.

    It follows from each block's least and largest segment and position, so it is never too late and seldom too early.
    """
    batch, length = segment_ids.shape
    blocks = length // BLOCK
    segments, positions = (x.reshape(batch, blocks, BLOCK) for x in (segment_ids, positions))
    least = jnp.min(jnp.where(segments > 0, segments, jnp.iinfo(jnp.int32).max), axis=2)
    largest = segments.max(axis=2)
    meets = (least[:, :, None] <= largest[:, None, :]) & (least[:, None, :] <= largest[:, :, None])
    if left is not None:
        meets &= positions.min(axis=2)[:, :, None] - positions.max(axis=2)[:, None, :] <= left
    meets = jnp.any(meets, axis=0) & jnp.tri(blocks, dtype=bool) | jnp.eye(blocks, dtype=bool)
    return jnp.argmax(meets, axis=1)


def _scores(query_BKRH, key, segment_ids, positions, number, key_block, left):
    """(mask, scores) of a block of queries, scaled and below each other, and a block of keys; [B K R S]."""
    query_ids, key_ids = ([_block(x, n) for x in (segment_ids, positions)] for n in (number, key_block))
    group = query_BKRH.shape[2] // BLOCK
    mask = jnp.tile(causal_mask(*query_ids, *key_ids, left), (1, group, 1))[:, None]
    return mask, _einsum("BKRH,BSKH->BKRS", query_BKRH, _block(key, key_block))


def _block(x: Array, number: Array) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, number * BLOCK, BLOCK, axis=1)


def _add(whole: Array, number: Array, part: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(whole, _block(whole, number) + part, number * BLOCK, axis=1)


def _einsum(pattern: str, a: Array, b: Array) -> Array:
    return jnp.einsum(pattern, a, b, preferred_element_type=jnp.float32)
