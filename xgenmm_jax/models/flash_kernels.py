"""Bodies of the flash kernels (`flash.py` calls them): one program is a block of rows of one head of one batch row.

Refs hold one batch row; widths are padded to a power of two, as Triton wants, and masked.
"""

from dataclasses import dataclass
import math

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
import jax.numpy as jnp
from jaxtyping import Array, Bool

NOTHING = -1e30
"""Score of a hidden key: finite, so that the difference of two of them is 0 and not NaN."""

LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Order:
    """Offsets of key minus query that are seen lie in [least, most]; None: no limit."""

    least: int | None
    most: int | None

    def reversed(self) -> "Order":
        """The same, seen from the keys: offsets of query minus key."""
        least, most = (None if offset is None else -offset for offset in (self.most, self.least))
        return Order(least, most)


def _load(ref, index, width: int):
    """A block [n h] of a ref whose last axis is wider than the array's: what lies beyond `width` is 0."""
    within = (jnp.arange(ref.shape[-1]) < width)[None, :]
    return plgpu.load(ref.at[(*index, slice(None))], mask=within, other=0.0)


def _store(ref, values, width: int) -> None:
    within = (jnp.arange(ref.shape[-1]) < width)[None, :]
    plgpu.store(ref.at[...], values.astype(ref.dtype), mask=within)


def _dot(a, b):
    # TF32 would cost float32 half of its digits; products of bfloat16 are exact anyway.
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _is_seen(query_segments, key_segments, query_start, key_start, order: Order) -> Bool[Array, "q k"]:
    seen = (query_segments[:, None] == key_segments[None, :]) & (key_segments > 0)[None, :]
    queries = query_start + jnp.arange(query_segments.shape[0], dtype=jnp.int32)
    keys = key_start + jnp.arange(key_segments.shape[0], dtype=jnp.int32)
    offset = keys[None, :] - queries[:, None]
    if order.least is not None:
        seen &= offset >= order.least
    if order.most is not None:
        seen &= offset <= order.most
    return seen


def forward_kernel(
    query_ref, key_ref, value_ref, query_segment_ref, key_segment_ref, first_ref, stop_ref, context_ref, log_ref, *,
    width: int, step: int, order: Order,
):  # fmt: skip
    block, padded = query_ref.shape
    query_start = pl.program_id(0) * block
    query = _load(query_ref, (pl.ds(0, block),), width)
    query_segments = query_segment_ref[...]

    def body(number, carry):
        context, largest, total = carry
        rows = pl.ds(number * step, step)
        seen = _is_seen(query_segments, key_segment_ref[rows], query_start, number * step, order)
        scores = _dot(query, _load(key_ref, (rows,), width).T) * (width**-0.5 * LOG2_E)
        scores = jnp.where(seen, scores, NOTHING)
        new_largest = jnp.maximum(largest, jnp.max(scores, axis=-1))
        weights = jnp.where(seen, jnp.exp2(scores - new_largest[:, None]), 0.0)
        shrink = jnp.exp2(largest - new_largest)
        value = _load(value_ref, (rows,), width)
        context = context * shrink[:, None] + _dot(weights.astype(value.dtype), value)
        return context, new_largest, total * shrink + jnp.sum(weights, axis=-1)

    start = (
        jnp.zeros((block, padded), jnp.float32),
        jnp.full((block,), NOTHING, jnp.float32),
        jnp.zeros((block,), jnp.float32),
    )
    context, largest, total = jax.lax.fori_loop(first_ref[...], stop_ref[...], body, start)
    total = jnp.where(total > 0, total, 1.0)
    _store(context_ref, context / total[:, None], width)
    log_ref[...] = largest + jnp.log2(total)


def query_gradient_kernel(
    query_ref, key_ref, value_ref, query_segment_ref, key_segment_ref, grad_ref, log_ref, delta_ref, first_ref,
    stop_ref, d_query_ref, *, width: int, step: int, order: Order,
):  # fmt: skip
    block, padded = query_ref.shape
    query_start = pl.program_id(0) * block
    own = (pl.ds(0, block),)
    query, grad = _load(query_ref, own, width), _load(grad_ref, own, width)
    query_segments, log_total, delta = query_segment_ref[...], log_ref[...], delta_ref[...]

    def body(number, d_query):
        rows = pl.ds(number * step, step)
        key, value = _load(key_ref, (rows,), width), _load(value_ref, (rows,), width)
        seen = _is_seen(query_segments, key_segment_ref[rows], query_start, number * step, order)
        _, d_scores = _weights_and_gradient(query, key, value, grad, log_total, delta, seen, width)
        return d_query + _dot(d_scores.astype(key.dtype), key)

    d_query = jax.lax.fori_loop(first_ref[...], stop_ref[...], body, jnp.zeros((block, padded), jnp.float32))
    _store(d_query_ref, d_query * width**-0.5, width)


def key_value_gradient_kernel(
    query_ref, key_ref, value_ref, query_segment_ref, key_segment_ref, grad_ref, log_ref, delta_ref, first_ref,
    stop_ref, d_key_ref, d_value_ref, *, width: int, step: int, order: Order,
):  # fmt: skip
    """query_ref and grad_ref [T G h], log_ref and delta_ref [G T] hold all queries that one key-value head serves."""
    block, padded = key_ref.shape
    key_start = pl.program_id(0) * block
    own = (pl.ds(0, block),)
    key, value = _load(key_ref, own, width), _load(value_ref, own, width)
    key_segments = key_segment_ref[...]
    first, stop = first_ref[...], stop_ref[...]

    def of_head(head, carry):
        def body(number, carry):
            d_key, d_value = carry
            rows = pl.ds(number * step, step)
            query, grad = _load(query_ref, (rows, head), width), _load(grad_ref, (rows, head), width)
            seen = _is_seen(query_segment_ref[rows], key_segments, number * step, key_start, order)
            weights, d_scores = _weights_and_gradient(
                query, key, value, grad, log_ref[head, rows], delta_ref[head, rows], seen, width
            )
            d_value = d_value + _dot(weights.astype(grad.dtype).T, grad)
            return d_key + _dot(d_scores.astype(query.dtype).T, query), d_value

        return jax.lax.fori_loop(first, stop, body, carry)

    zeros = jnp.zeros((block, padded), jnp.float32)
    d_key, d_value = jax.lax.fori_loop(0, query_ref.shape[1], of_head, (zeros, zeros))
    _store(d_key_ref, d_key * width**-0.5, width)
    _store(d_value_ref, d_value, width)


def _weights_and_gradient(query, key, value, grad, log_total, delta, seen, width: int):
    """Softmax weights [q k] and the loss's gradient by the scaled scores [q k], float32."""
    scores = _dot(query, key.T) * (width**-0.5 * LOG2_E)
    weights = jnp.where(seen, jnp.exp2(scores - log_total[:, None]), 0.0)
    return weights, weights * (_dot(grad, value.T) - delta[:, None])
