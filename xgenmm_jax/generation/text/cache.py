"""Caches: how they lie over devices, and the buckets that rows, lengths and caches are rounded up to."""

from collections.abc import Sequence
import itertools

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
"""Logical axes of a cache's leaves: rows and key-value heads are cut, where they divide."""

PROMPT_BUCKETS = (
    16, 32, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536, 2048, 3072, 4096,
)  # fmt: skip
"""Positions of a left-padded prompt. Finely spaced: attention pays for padding twice, compilations are kept on disk."""

COARSE_PROMPT_BUCKETS = (32, 64, 96, 192, 320, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Those for `Limits.few_shapes`."""

NEW_TOKEN_BUCKETS = (16, 64, 256, 1024)
"""Room for answers. A caller's own limit below the bucket ends generation without another compilation."""

PREFIX_STEP = 8
"""A shared prefix is cut to a multiple of this, so that like prompts share a compilation."""
PREFIX_MIN = 16
"""Shorter ones are not worth one."""


def sharded(cache: Cache) -> Cache:
    """The cache, cut over the mesh as `AXES` and the table say, layers together or apart; for use under jit."""
    return Cache(*(_cut(leaves, names) for leaves, names in zip(cache, AXES, strict=True)))


def _cut(leaves: PyTree, names: tuple[str | None, ...]) -> PyTree:
    return jax.tree.map(lambda leaf: constrain(leaf, names), leaves)


def bucket(length: int, buckets: Sequence[int], what: str) -> int:
    """The smallest bucket that holds `length`.

    Raises: ValueError where none does.
    """
    for size in buckets:
        if length <= size:
            return size
    raise ValueError(f"generation: {length} {what} exceed the largest bucket, {buckets[-1]}; ask for fewer.")


def row_bucket(rows: int, most: int) -> int:
    """`most`, or the next power of two where fewer rows are asked for: a single question does not pay for a batch."""
    return min(most, 1 << max(rows - 1, 0).bit_length())


def common_prefix(prompts: Sequence[Sequence[int]], stop_ids: Sequence[int]) -> int:
    """How many ids all prompts begin with, before any of `stop_ids`, in whole steps, short of every prompt's end."""
    if len(prompts) < 2:
        return 0
    shortest = min(len(ids) for ids in prompts) - 1
    # Sorted sequences differ most between the first and the last.
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    alike = itertools.takewhile(
        lambda pair: pair[0] == pair[1] and pair[0] not in stop_ids, zip(first, last, strict=False)
    )
    shared = sum(1 for _ in alike)
    whole = min(shared, shortest) // PREFIX_STEP * PREFIX_STEP
    return whole if whole >= PREFIX_MIN else 0
