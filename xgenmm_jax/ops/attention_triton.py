"""Attention on an NVIDIA GPU: flash attention in Pallas (Triton), with segments, causal order and windows.

Blocks of keys that a block of queries does not attend to are never read: packed rows cost what their segments cost, not
what the row costs. cuDNN's packed layout, the other way to that, is private in JAX, wants a most number of segments and
leaves padding unwritten; its public interface takes masks as a dense bias. This file uses JAX's public names alone.

Source: FlashAttention-2 (arXiv 2307.08691). Backward is two kernels that add in a fixed order, so a resumed run has the
losses of an unbroken one; cuDNN's adds atomically. On an H200 the kernels before widths went in parts and blocks that
are visible whole lost their mask gave XLA's values and gradients; those here have met Pallas' interpreter, the lowering
to Triton, and Triton's compiler for Hopper (wgmma, no spills), not a GPU
(docs/log/kernels_gpu.md#not-run-on-any-accelerator). `pytest -m gpu tests/models` is the check that remains. JAX 0.12
warns that a future version drops Pallas' Triton backend; both pinned versions have it.
"""

from dataclasses import dataclass
import functools
from typing import NamedTuple

import jax
from jax import ad_checkpoint
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from xgenmm_jax.ops.triton_kernels import (
    Order,
    forward_kernel,
    key_value_gradient_kernel,
    padded_width,
    query_gradient_kernel,
)

ROW_MULTIPLE = 128
"""Rows are padded to a multiple of this, which every block divides."""


@dataclass(frozen=True)
class Tile:
    """Tiling of a kernel: rows that a program holds, rows of the other side that it takes at a time, its warps and the
    depth of its pipeline of loads."""

    rows: int
    step: int
    warps: int
    stages: int


FORWARD = Tile(128, 64, 8, 3)
QUERY_GRADIENT = Tile(128, 64, 8, 2)
KEY_VALUE_GRADIENT = Tile(64, 128, 8, 2)
"""On an H200 forward and backward of packed rows took 3.3 ms with these rows and steps, 3.6 to 5.6 ms with five others
(docs/log/kernels_gpu.md#flash-beside-cudnn)."""


@dataclass(frozen=True)
class _Options:
    order: Order
    checkpoint_name: str
    interpret: bool


def flash_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    query_segments: Int32[Array, "B T"],
    key_segments: Int32[Array, "B S"],
    *,
    causal: bool,
    left: int | None,
    checkpoint_name: str,
    interpret: bool,
) -> Float[Array, "B T N H"]:
    """softmax(query key^T / sqrt(H)) value over the keys of a query's own segment; segment 0 is padding, without keys.

    causal: only keys that are not later; of these the `left` before the query and its own, or all where it is None.
    Both count rows of the array. A query without keys gets 0 and passes back no gradient. checkpoint_name: what a
    remat policy calls the result. interpret: run on a CPU. Scores, softmax and sums are float32.
    """
    length = query.shape[1]
    order = Order(least=-left if causal and left is not None else None, most=0 if causal else None)
    arrays = [_padded(x) for x in (query, key, value, query_segments, key_segments)]
    return _flash(*arrays, _Options(order, checkpoint_name, interpret))[:, :length]


def _padded(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % ROW_MULTIPLE)) + ((0, 0),) * (x.ndim - 2))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _flash(query, key, value, query_segments, key_segments, options):
    return _context(query, key, value, query_segments, key_segments, options)[0]


def _forward(query, key, value, query_segments, key_segments, options):
    context, log_total = _context(query, key, value, query_segments, key_segments, options)
    # Both named: a policy that keeps attention's result then has no reason to run the kernel again.
    context = ad_checkpoint.checkpoint_name(context, options.checkpoint_name)
    log_total = ad_checkpoint.checkpoint_name(log_total, options.checkpoint_name)
    return context, (query, key, value, query_segments, key_segments, context, log_total)


def _backward(options, saved, grad):
    *inputs, context, log_total = saved
    # Of each query the sum of weights times their gradients, by FlashAttention-2's identity.
    delta_BTN = jnp.sum(grad.astype(jnp.float32) * context.astype(jnp.float32), axis=-1)
    inputs = (*inputs, grad, log_total, delta_BTN.transpose(0, 2, 1))
    return (_query_gradient(*inputs, options), *_key_value_gradients(*inputs, options), None, None)


_flash.defvjp(_forward, _backward)


def block_ranges(
    row_segments: Int32[Array, "B R"],
    column_segments: Int32[Array, "B C"],
    row_block: int,
    column_block: int,
    order: Order,
) -> Int32[Array, "B r 4"]:
    """Range of the blocks of columns that a block of rows reads: first, first whole, first behind the whole ones, end.

    A row attends to the columns of its segment whose offset from it `order` allows. Blocks outside of the range are
    hidden, and some inside may be. Whole: every row attends to every column, so that no mask is needed; where no block
    is whole, both bounds are the end. Segments 1 1 1 1 2 2 0 0, causal, blocks of 2: (0, 1, 1, 1), (0, 0, 1, 2),
    (2, 3, 3, 3), (0, 0, 0, 0).
    """
    row_low, row_high, row_whole = _segment_span(row_segments, row_block)
    column_low, column_high, column_whole = _segment_span(column_segments, column_block)
    meets = (row_low[:, :, None] <= column_high[:, None]) & (column_low[:, None] <= row_high[:, :, None])
    whole = row_whole[:, :, None] & column_whole[:, None] & (row_low[:, :, None] == column_low[:, None])
    row_start = jnp.arange(row_low.shape[1], dtype=jnp.int32)[None, :, None] * row_block
    column_start = jnp.arange(column_low.shape[1], dtype=jnp.int32)[None, None] * column_block
    # Offsets of the block's two outer corners; all others lie between.
    lowest, highest = column_start - row_start - row_block + 1, column_start + column_block - 1 - row_start
    if order.least is not None:
        meets &= highest >= order.least
        whole &= lowest >= order.least
    if order.most is not None:
        meets &= lowest <= order.most
        whole &= highest <= order.most
    count = meets.shape[-1]
    first = jnp.argmax(meets, axis=-1)
    stop = jnp.where(jnp.any(meets, axis=-1), count - jnp.argmax(meets[..., ::-1], axis=-1), 0)
    first_whole = jnp.where(jnp.any(whole, axis=-1), jnp.argmax(whole, axis=-1), stop)
    ends = ~whole & (jnp.arange(count)[None, None] >= first_whole[..., None])
    behind = jnp.where(jnp.any(ends, axis=-1), jnp.argmax(ends, axis=-1), count)
    return jnp.stack([first, first_whole, jnp.minimum(behind, stop), stop], axis=-1).astype(jnp.int32)


def _segment_span(
    segments: Int32[Array, "B R"], block: int
) -> tuple[Int32[Array, "B r"], Int32[Array, "B r"], Bool[Array, "B r"]]:
    """Lowest and highest segment of each block, padding not counted, and whether it is one segment without padding.

    Where all is padding, a span that meets none.
    """
    blocks = segments.reshape(segments.shape[0], -1, block)
    low = jnp.min(jnp.where(blocks > 0, blocks, jnp.iinfo(jnp.int32).max), axis=-1)
    high = jnp.max(blocks, axis=-1)
    return low, high, (jnp.min(blocks, axis=-1) == high) & (high > 0)


class _Specs(NamedTuple):
    """Blocks of arrays [B R N H], [B R], [B N R], [B blocks 4] for a program of the grid (block, head, batch row)."""

    heads: pl.BlockSpec
    row: pl.BlockSpec
    per_head: pl.BlockSpec
    ranges: pl.BlockSpec


def _block_specs(block: int, width: int) -> _Specs:
    """The block of rows and the head that the program computes."""
    return _Specs(
        heads=pl.BlockSpec((None, block, None, padded_width(width)), lambda i, n, b: (b, i, n, 0)),
        row=pl.BlockSpec((None, block), lambda i, n, b: (b, i)),
        per_head=pl.BlockSpec((None, None, block), lambda i, n, b: (b, n, i)),
        ranges=pl.BlockSpec((None, None, 4), lambda i, n, b: (b, i, 0)),
    )


def _compiler_params(tile: Tile) -> plgpu.CompilerParams:
    return plgpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages)


def _context(query, key, value, query_segments, key_segments, options: _Options):
    """The context and, of each query, log2 of the sum that its softmax divides by [B N T], float32."""
    block, step = FORWARD.rows, FORWARD.step
    (batch, length, heads, width), keys = query.shape, key.shape[1]
    group = heads // key.shape[2]
    specs = _block_specs(block, width)
    key_head = pl.BlockSpec(
        (None, keys, None, padded_width(width)), lambda i, n, b: (b, 0, jax.lax.div(n, group), 0)
    )
    key_row = pl.BlockSpec((None, keys), lambda i, n, b: (b, 0))
    return pl.pallas_call(
        functools.partial(forward_kernel, width=width, step=step, order=options.order),
        grid=(length // block, heads, batch),
        in_specs=[specs.heads, key_head, key_head, specs.row, key_row, specs.ranges],
        out_specs=[specs.heads, specs.per_head],
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, value.dtype),
            jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
        ],
        compiler_params=_compiler_params(FORWARD),
        interpret=options.interpret,
        name="flash_forward",
    )(
        *(query, key, value, query_segments, key_segments),
        block_ranges(query_segments, key_segments, block, step, options.order),
    )


def _query_gradient(query, key, value, query_segments, key_segments, grad, log_total, delta, options: _Options):
    block, step = QUERY_GRADIENT.rows, QUERY_GRADIENT.step
    (batch, length, heads, width), keys = query.shape, key.shape[1]
    group = heads // key.shape[2]
    specs = _block_specs(block, width)
    key_head = pl.BlockSpec(
        (None, keys, None, padded_width(width)), lambda i, n, b: (b, 0, jax.lax.div(n, group), 0)
    )
    key_row = pl.BlockSpec((None, keys), lambda i, n, b: (b, 0))
    of_queries = [specs.heads, specs.per_head, specs.per_head]
    return pl.pallas_call(
        functools.partial(query_gradient_kernel, width=width, step=step, order=options.order),
        grid=(length // block, heads, batch),
        in_specs=[specs.heads, key_head, key_head, specs.row, key_row, *of_queries, specs.ranges],
        out_specs=specs.heads,
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        compiler_params=_compiler_params(QUERY_GRADIENT),
        interpret=options.interpret,
        name="flash_query_gradient",
    )(
        *(query, key, value, query_segments, key_segments, grad, log_total, delta),
        block_ranges(query_segments, key_segments, block, step, options.order),
    )


def _key_value_gradients(query, key, value, query_segments, key_segments, grad, log_total, delta, options: _Options):
    block, step = KEY_VALUE_GRADIENT.rows, KEY_VALUE_GRADIENT.step
    (batch, keys, kv_heads, width), (length, heads) = key.shape, query.shape[1:3]
    group = heads // kv_heads
    specs = _block_specs(block, width)
    query_group = pl.BlockSpec((None, length, group, padded_width(width)), lambda i, k, b: (b, 0, k, 0))
    query_row = pl.BlockSpec((None, length), lambda i, k, b: (b, 0))
    per_query = pl.BlockSpec((None, group, length), lambda i, k, b: (b, k, 0))
    of_queries = [query_group, per_query, per_query]
    return pl.pallas_call(
        functools.partial(key_value_gradient_kernel, width=width, step=step, order=options.order),
        grid=(keys // block, kv_heads, batch),
        in_specs=[query_group, specs.heads, specs.heads, query_row, specs.row, *of_queries, specs.ranges],
        out_specs=[specs.heads, specs.heads],
        out_shape=[jax.ShapeDtypeStruct(key.shape, key.dtype), jax.ShapeDtypeStruct(value.shape, value.dtype)],
        compiler_params=_compiler_params(KEY_VALUE_GRADIENT),
        interpret=options.interpret,
        name="flash_key_value_gradient",
    )(
        *(query, key, value, query_segments, key_segments, grad, log_total, delta),
        block_ranges(key_segments, query_segments, block, step, options.order.reversed()),
    )
