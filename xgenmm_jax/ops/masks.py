"""Attention masks: packed rows in causal order, sliding windows, padded keys.

A mask is made once per batch and handed to every layer, in the form that the implementation of attention takes.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32

from xgenmm_jax.ops.attention_choice import Implementation, implementation_for, is_long


class WindowConvention(Enum):
    """How many keys a token attends to in sliding attention of size w (transformers' versions disagree:
    docs/reference/xgenmm.md#sliding-window).

    W_PLUS_1: keys i-w..i (w + 1 of them), W: keys i-w+1..i, NONE: all up to itself. Counted in positions.
    """

    W_PLUS_1 = "w_plus_1"
    W = "w"
    NONE = "none"


@dataclass(frozen=True)
class SlidingWindow:
    """Causal order: a query attends to its own key and the `left` keys before it; None: to all before it."""

    left: int | None = None

    @classmethod
    def of(cls, convention: WindowConvention, size: int) -> "SlidingWindow":
        """Of a decoder whose window has this size."""
        lefts = {WindowConvention.W_PLUS_1: size, WindowConvention.W: size - 1, WindowConvention.NONE: None}
        return cls(lefts[convention])


class AttentionMask(NamedTuple):
    """Attention mask of a batch, built once for all layers: a dense mask for XLA, segment ids for kernels.

    dense: True where query t attends to key s. Segment ids: a query attends to the keys of its own segment. XLA takes
    long packed rows as segments too, with positions: their dense mask would be a byte for every pair of positions.
    All None: every query attends to every key.
    """

    dense: Bool[Array, "B #T S"] | None = None
    query_segments: Int32[Array, "B T"] | None = None
    key_segments: Int32[Array, "B S"] | None = None
    positions: Int32[Array, "B T"] | None = None


def packed_causal_mask(
    segment_ids: Int32[Array, "B T"], positions: Int32[Array, "B T"], window: SlidingWindow,
    implementation: Implementation,
) -> AttentionMask:  # fmt: skip
    """Self-attention of packed rows: causal, inside a segment. Segment 0 is padding.

    Windows count positions. Kernels count indices in the row instead, which is the same where a segment's positions
    count up one by one, as packing lays them; padding inside a segment would be counted by a kernel's window.
    """
    length = segment_ids.shape[1]
    if implementation_for(implementation, length, length) == "xla":
        if is_long(length):
            return AttentionMask(query_segments=segment_ids, key_segments=segment_ids, positions=positions)
        return AttentionMask(dense=causal_mask(segment_ids, positions, segment_ids, positions, window.left))
    return AttentionMask(query_segments=segment_ids, key_segments=segment_ids)


def key_padding_mask(is_valid: Bool[Array, "B S"], length: int, implementation: Implementation) -> AttentionMask:
    """`length` queries a row that all attend to the same, valid keys."""
    if implementation_for(implementation, length, is_valid.shape[1]) == "xla":
        return AttentionMask(dense=is_valid[:, None])
    query_segments = jnp.ones((is_valid.shape[0], length), jnp.int32)
    return AttentionMask(query_segments=query_segments, key_segments=is_valid.astype(jnp.int32))


def causal_mask(
    query_segments: Int32[Array, "B t"],
    query_positions: Int32[Array, "B t"],
    key_segments: Int32[Array, "B s"],
    key_positions: Int32[Array, "B s"],
    left: int | None,
) -> Bool[Array, "B t s"]:
    """True where query t attends to key s: same segment, not later, at most `left` positions before (None: any).

    Segment 0 is padding: no query attends to it. Segments 1 1 2 0 at positions 0 1 0 0 without window give

        1 0 0 0
        1 1 0 0
        0 0 1 0
        0 0 0 0    a row without keys: `attend` gives it something finite, which is never read
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    mask = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments[:, None, :] > 0) & (distance >= 0)
    return mask if left is None else mask & (distance <= left)


def dense_mask(mask: AttentionMask, window: SlidingWindow | None) -> Bool[Array, "B #T S"] | None:
    """True where a key is attended to, whichever form the mask has; None where all are. window: as of `attend`."""
    if mask.dense is not None or mask.query_segments is None:
        return mask.dense
    query_segments, key_segments = mask.query_segments, mask.key_segments
    if window is None:
        return (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments[:, None, :] > 0)
    positions = mask.positions
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(key_segments.shape[1], dtype=jnp.int32)[None], key_segments.shape)
    return causal_mask(query_segments, positions, key_segments, positions, window.left)
