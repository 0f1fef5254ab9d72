"""Attention of long packed rows in XLA's own operations: block by block, blocks that nobody sees left out.

The softmax is kept up to date while blocks of keys pass by, and the backward pass computes scores again from the sums
that the forward pass leaves, as flash attention does (Dao 2023, arXiv:2307.08691): no mask and no scores of all pairs
ever exist, and time goes by the pairs that are seen. It serves processors, where a row of many samples is the rule.
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
"""A score that is not seen. Not -inf: where nothing is seen the softmax must not become NaN."""


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

    Keys behind a query in the row are taken as later, as packing lays them. What padding gets is finite, and nothing
    flows back through it.
    """
    return _forward(query, key, value, segment_ids, positions, left)[0]


def _forward(query, key, value, segment_ids, positions, left):
    batch, length, heads, width = query.shape
    kv_heads = key.shape[2]
    first = _first_blocks(segment_ids, positions, left)

    def one(number: Array) -> tuple[Float[Array, "B t N H"], Float[Array, "B K R 1"]]:
        query_BKRH = group_heads(_block(query, number) * width**-0.5, kv_heads)

        def see(other: Array, seen: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            largest, total, context = seen
            shown, scores = _scores(query_BKRH, key, segment_ids, positions, number, other, left)
            scores = jnp.where(shown, scores, _LEAST)
            now_largest = jnp.maximum(largest, scores.max(axis=-1, keepdims=True))
            weights, before = jnp.exp(scores - now_largest), jnp.exp(largest - now_largest)
            new = _product("BKRS,BSKH->BKRH", weights.astype(value.dtype), _block(value, other))
            return now_largest, total * before + weights.sum(axis=-1, keepdims=True), context * before + new

        zeros = jnp.zeros((*query_BKRH.shape[:3], 1), jnp.float32)
        nothing = zeros + _LEAST, zeros, jnp.zeros(query_BKRH.shape, jnp.float32)
        largest, total, context = jax.lax.fori_loop(first[number], number + 1, see, nothing)
        return ungroup_heads((context / total).astype(value.dtype), heads), largest + jnp.log(total)

    context, log_sums = jax.lax.map(one, jnp.arange(length // BLOCK))
    context = context.swapaxes(0, 1).reshape(query.shape)
    return context, (query, key, value, segment_ids, positions, context, log_sums)


def _backward(left, kept, grad):
    query, key, value, segment_ids, positions, context, log_sums = kept
    length, heads, width = query.shape[1:]
    kv_heads = key.shape[2]
    first = _first_blocks(segment_ids, positions, left)

    def one(grads: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], Float[Array, "B t N H"]]:
        query_BKRH = group_heads(_block(query, number) * width**-0.5, kv_heads)
        grad_BKRH, context_BKRH = (group_heads(_block(x, number), kv_heads) for x in (grad, context))
        mean = jnp.sum(grad_BKRH.astype(jnp.float32) * context_BKRH, axis=-1, keepdims=True)

        def see(other: Array, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            grad_query, grad_key, grad_value = so_far
            keys, values = _block(key, other), _block(value, other)
            shown, scores = _scores(query_BKRH, key, segment_ids, positions, number, other, left)
            weights = jnp.where(shown, jnp.exp(scores - log_sums[number]), 0.0)
            grad_scores = weights * (_product("BKRH,BSKH->BKRS", grad_BKRH, values) - mean)
            weights, grad_scores = weights.astype(value.dtype), grad_scores.astype(value.dtype)
            return (
                grad_query + _product("BKRS,BSKH->BKRH", grad_scores, keys),
                _add(grad_key, other, _product("BKRS,BKRH->BSKH", grad_scores, query_BKRH)),
                _add(grad_value, other, _product("BKRS,BKRH->BSKH", weights, grad_BKRH)),
            )

        nothing = jnp.zeros(query_BKRH.shape, jnp.float32)
        grad_query, *grads = jax.lax.fori_loop(first[number], number + 1, see, (nothing, *grads))
        return tuple(grads), ungroup_heads(grad_query * width**-0.5, heads)

    nothing = tuple(jnp.zeros(x.shape, jnp.float32) for x in (key, value))
    (grad_key, grad_value), grad_query = jax.lax.scan(one, nothing, jnp.arange(length // BLOCK))
    grad_query = grad_query.swapaxes(0, 1).reshape(query.shape)
    return grad_query.astype(query.dtype), grad_key.astype(key.dtype), grad_value.astype(value.dtype), None, None


blockwise_attention.defvjp(_forward, _backward)


def _first_blocks(
    segment_ids: Int32[Array, "B T"], positions: Int32[Array, "B T"], left: int | None
) -> Int32[Array, " n"]:
    """For each block of queries the first block of keys that one of them may see, in any row; its own if none does.

    Blocks are told by their least and largest segment and position, so it is never too late and seldom too early.
    """
    batch, length = segment_ids.shape
    blocks = length // BLOCK
    segments, positions = (x.reshape(batch, blocks, BLOCK) for x in (segment_ids, positions))
    least = jnp.min(jnp.where(segments > 0, segments, jnp.iinfo(jnp.int32).max), axis=2)
    largest = segments.max(axis=2)
    seen = (least[:, :, None] <= largest[:, None, :]) & (least[:, None, :] <= largest[:, :, None])
    if left is not None:
        seen &= positions.min(axis=2)[:, :, None] - positions.max(axis=2)[:, None, :] <= left
    seen = jnp.any(seen, axis=0) & jnp.tri(blocks, dtype=bool) | jnp.eye(blocks, dtype=bool)
    return jnp.argmax(seen, axis=1)


def _scores(query_BKRH, key, segment_ids, positions, number, other, left):
    """(what is seen, scores) of a block of queries, scaled and below each other, and a block of keys; [B K R S]."""
    own, others = ([_block(x, n) for x in (segment_ids, positions)] for n in (number, other))
    group = query_BKRH.shape[2] // BLOCK
    shown = jnp.tile(causal_mask(*own, *others, left), (1, group, 1))[:, None]
    return shown, _product("BKRH,BSKH->BKRS", query_BKRH, _block(key, other))


def _block(x: Array, number: Array) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, number * BLOCK, BLOCK, axis=1)


def _add(whole: Array, number: Array, part: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(whole, _block(whole, number) + part, number * BLOCK, axis=1)


def _product(pattern: str, a: Array, b: Array) -> Array:
    return jnp.einsum(pattern, a, b, preferred_element_type=jnp.float32)
