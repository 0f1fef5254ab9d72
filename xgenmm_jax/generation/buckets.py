"""Sizes that prompts, answers and batches are rounded up to, so that calls of like sizes share a compilation."""

from collections.abc import Sequence

PROMPT_BUCKETS = (
    16, 32, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536, 2048, 3072, 4096,
)  # fmt: skip
"""Positions of a prompt. Finely spaced: attention pays for padding twice, compilations are kept on disk."""

COARSE_PROMPT_BUCKETS = (32, 64, 96, 192, 320, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Those for `Limits.few_shapes`."""

NEW_TOKEN_BUCKETS = (16, 64, 256, 1024)
"""Room for answers. A caller's own limit below the bucket ends generation without another compilation."""


def bucket(length: int, buckets: Sequence[int], what: str) -> int:
    """The smallest bucket that holds `length`. what: of which there are so many, for the error.

    Raises ValueError where none does.
    """
    for size in buckets:
        if length <= size:
            return size
    raise ValueError(f"generation: {length} {what} exceed the largest bucket, {buckets[-1]}; ask for fewer.")


def row_bucket(rows: int, most: int) -> int:
    """`most`, or the next power of two where there are fewer rows: a single question does not pay for a batch."""
    return min(most, 1 << max(rows - 1, 0).bit_length())
