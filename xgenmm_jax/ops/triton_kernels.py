"""Bodies of the flash kernels (`attention_triton.py` calls them): a program is a block of rows of one head.

Refs hold one batch row. Triton wants powers of two, so a head's width goes in parts, 96 as 64 + 32, and each product of
matrices is a sum over them: no arithmetic is done on padding but for a remainder below 16.
"""

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
import jax.numpy as jnp
from jaxtyping import Array, Bool

HIDDEN = -1e30
"""Score of a hidden key: finite, so that the difference of two of them is 0 and not NaN."""

LOG2_E = math.log2(math.e)

SMALLEST_PART = 16
"""Width of the narrowest product of matrices."""


@dataclass(frozen=True)
class Order:
    """Keys whose offset from the query lies in [least, most] are visible; None: no limit."""

    least: int | None
    most: int | None

    def reversed(self) -> "Order":
        """The same for offsets of the query from the key."""
        least, most = (None if offset is None else -offset for offset in (self.most, self.least))
        return Order(least, most)


def parts_of(width: int) -> tuple[tuple[int, int, int], ...]:
    """(start, size, numbers of the array in it): 96 is (0, 64, 64), (64, 32, 32), 72 is (0, 64, 64), (64, 16, 8)."""
    parts, start = [], 0
    while start < width:
        left = width - start
        size = max(1 << (left.bit_length() - 1), SMALLEST_PART)
        parts.append((start, size, min(size, left)))
        start += size
    return tuple(parts)


def padded_width(width: int) -> int:
    """Of all parts together."""
    start, size, _ = parts_of(width)[-1]
    return start + size


def load_parts(ref, index, width: int) -> tuple:
    """A block [n h] of a ref, in parts; what lies beyond `width` is 0."""
    parts = []
    for start, size, real in parts_of(width):
        part_ref = ref.at[(*index, pl.ds(start, size))]
        if real == size:
            parts.append(plgpu.load(part_ref))
        else:
            parts.append(plgpu.load(part_ref, mask=(jnp.arange(size) < real)[None, :], other=0.0))
    return tuple(parts)


def store_parts(ref, values: tuple, width: int) -> None:
    rows = pl.ds(0, ref.shape[0])
    for value, (start, size, real) in zip(values, parts_of(width), strict=True):
        mask = None if real == size else (jnp.arange(size) < real)[None, :]
        plgpu.store(ref.at[rows, pl.ds(start, size)], value.astype(ref.dtype), mask=mask)


def _dot(a, b):
    # TF32 would cost float32 half of its digits; products of bfloat16 are exact anyway.
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _scores(a: tuple, b: tuple):
    """[q h] and [k h] in parts to [q k]."""
    return sum(_dot(one, other.T) for one, other in zip(a, b, strict=True))


def _add_product(total: tuple, weights, values: tuple) -> tuple:
    """total + weights values, part by part."""
    return tuple(old + _dot(weights.astype(value.dtype), value) for old, value in zip(total, values, strict=True))


def zero_parts(rows: int, width: int) -> tuple:
    return tuple(jnp.zeros((rows, size), jnp.float32) for _, size, _ in parts_of(width))


def _visible(query_segments, key_segments, query_start, key_start, order: Order) -> Bool[Array, "q k"]:
    mask = (query_segments[:, None] == key_segments[None, :]) & (key_segments > 0)[None, :]
    queries = query_start + jnp.arange(query_segments.shape[0], dtype=jnp.int32)
    keys = key_start + jnp.arange(key_segments.shape[0], dtype=jnp.int32)
    offset = keys[None, :] - queries[:, None]
    if order.least is not None:
        mask &= offset >= order.least
    if order.most is not None:
        mask &= offset <= order.most
    return mask


def _over_blocks(ranges_ref, body: Callable[[Any, Any, bool], Any], carry: Any) -> Any:
    """body(block, carry, whole) over a program's blocks of columns; whole: every pair is visible, no mask is needed.

    ranges_ref: first block, first whole one, first behind the whole ones, and where the blocks end.
    """
    first, whole, behind, stop = (ranges_ref[number] for number in range(4))
    carry = jax.lax.fori_loop(first, whole, lambda number, carry: body(number, carry, False), carry)
    carry = jax.lax.fori_loop(whole, behind, lambda number, carry: body(number, carry, True), carry)
    return jax.lax.fori_loop(behind, stop, lambda number, carry: body(number, carry, False), carry)


def forward_kernel(
    query_ref, key_ref, value_ref, query_segment_ref, key_segment_ref, ranges_ref, context_ref, log_ref, *,
    width: int, step: int, order: Order,
):  # fmt: skip
    block = query_ref.shape[0]
    query_start = pl.program_id(0) * block
    query = load_parts(query_ref, (pl.ds(0, block),), width)
    query_segments = query_segment_ref[...]
    scale = width**-0.5 * LOG2_E

    def body(number, carry, whole):
        context, largest, total = carry
        rows = pl.ds(number * step, step)
        scores = _scores(query, load_parts(key_ref, (rows,), width)) * scale
        if not whole:
            mask = _visible(query_segments, key_segment_ref[rows], query_start, number * step, order)
            scores = jnp.where(mask, scores, HIDDEN)
        new_largest = jnp.maximum(largest, jnp.max(scores, axis=-1))
        weights = jnp.exp2(scores - new_largest[:, None])
        if not whole:
            weights = jnp.where(mask, weights, 0.0)
        shrink = jnp.exp2(largest - new_largest)
        context = tuple(part * shrink[:, None] for part in context)
        context = _add_product(context, weights, load_parts(value_ref, (rows,), width))
        return context, new_largest, total * shrink + jnp.sum(weights, axis=-1)

    start = (zero_parts(block, width), jnp.full((block,), HIDDEN, jnp.float32), jnp.zeros((block,), jnp.float32))
    context, largest, total = _over_blocks(ranges_ref, body, start)
    total = jnp.where(total > 0, total, 1.0)
    store_parts(context_ref, tuple(part / total[:, None] for part in context), width)
    log_ref[...] = largest + jnp.log2(total)


def query_gradient_kernel(
    query_ref, key_ref, value_ref, query_segment_ref, key_segment_ref, grad_ref, log_ref, delta_ref, ranges_ref,
    d_query_ref, *, width: int, step: int, order: Order,
):  # fmt: skip
    block = query_ref.shape[0]
    query_start = pl.program_id(0) * block
    block_rows = (pl.ds(0, block),)
    query, grad = load_parts(query_ref, block_rows, width), load_parts(grad_ref, block_rows, width)
    query_segments, log_total, delta = query_segment_ref[...], log_ref[...], delta_ref[...]

    def body(number, d_query, whole):
        rows = pl.ds(number * step, step)
        key, value = load_parts(key_ref, (rows,), width), load_parts(value_ref, (rows,), width)
        mask = None
        if not whole:
            mask = _visible(query_segments, key_segment_ref[rows], query_start, number * step, order)
        _, d_scores = _weights_and_gradient(query, key, value, grad, log_total, delta, mask, width)
        return _add_product(d_query, d_scores, key)

    d_query = _over_blocks(ranges_ref, body, zero_parts(block, width))
    store_parts(d_query_ref, tuple(part * width**-0.5 for part in d_query), width)


def key_value_gradient_kernel(
    query_ref, key_ref, value_ref, query_segment_ref, key_segment_ref, grad_ref, log_ref, delta_ref, ranges_ref,
    d_key_ref, d_value_ref, *, width: int, step: int, order: Order,
):  # fmt: skip
    """query_ref and grad_ref [T G h], log_ref and delta_ref [G T] hold all queries that one key-value head serves."""
    block = key_ref.shape[0]
    key_start = pl.program_id(0) * block
    block_rows = (pl.ds(0, block),)
    key, value = load_parts(key_ref, block_rows, width), load_parts(value_ref, block_rows, width)
    key_segments = key_segment_ref[...]

    def of_head(head, carry):
        def body(number, carry, whole):
            d_key, d_value = carry
            rows = pl.ds(number * step, step)
            query, grad = load_parts(query_ref, (rows, head), width), load_parts(grad_ref, (rows, head), width)
            mask = None
            if not whole:
                mask = _visible(query_segment_ref[rows], key_segments, number * step, key_start, order)
            weights, d_scores = _weights_and_gradient(
                query, key, value, grad, log_ref[head, rows], delta_ref[head, rows], mask, width
            )
            return _add_product(d_key, d_scores.T, query), _add_product(d_value, weights.T, grad)

        return _over_blocks(ranges_ref, body, carry)

    start = (zero_parts(block, width), zero_parts(block, width))
    d_key, d_value = jax.lax.fori_loop(0, query_ref.shape[1], of_head, start)
    store_parts(d_key_ref, tuple(part * width**-0.5 for part in d_key), width)
    store_parts(d_value_ref, d_value, width)


def _weights_and_gradient(query, key, value, grad, log_total, delta, mask, width: int):
    """Softmax weights [q k] and the loss's gradient by the scaled scores [q k], float32. mask: None hides no pair."""
    weights = jnp.exp2(_scores(query, key) * (width**-0.5 * LOG2_E) - log_total[:, None])
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    return weights, weights * (_scores(grad, value) - delta[:, None])
