"""A window's samples by what they take of a row, as `filling.py` and `look_ahead.py` draw them into rows."""

import itertools

from jaxtyping import Int64
import numpy as np

IMBALANCE = 4
"""How much more than its room a row's imbalance counts. Heavier fills any-res captions better, lighter documents
(docs/log/packing_scaling.md#two-budgets-in-step)."""
UNFILLABLE = 4
"""How much more than its room counts what no sample that is left could take, such as one crop where all take three."""

Alike = tuple[int, int, int, float, list[int], list[int]]
"""Samples that take equally much of every budget but positions: of the scarce budget, of the third, of the fourth; the
largest of these as a part of a row; their positions, ascending; their numbers, of equal positions the earliest last.
A plain tuple, since named ones take four times as long to take apart."""

Open = tuple[int, int, int, int]
"""What a row has left: positions, the scarce budget, the third, the fourth."""


def alike(sizes: Int64[np.ndarray, "n 4"], axes: list[int], full: Open) -> list[Alike]:
    """The samples by what they take of `axes`, those that take least first."""
    costs = np.zeros((len(sizes), 3), np.int64)
    costs[:, : len(axes)] = sizes[:, axes]
    latest_first = -np.arange(len(sizes))
    order = np.lexsort((latest_first, sizes[:, 0], costs[:, 2], costs[:, 1], costs[:, 0]))
    costs, positions, samples = costs[order], sizes[order, 0].tolist(), order.tolist()
    starts = [0, *(np.flatnonzero((costs[1:] != costs[:-1]).any(axis=1)) + 1).tolist(), len(sizes)]
    groups = []
    for start, end in itertools.pairwise(starts):
        takes = costs[start].tolist()
        part = max(need / most for need, most in zip(takes, full[1:], strict=True))
        groups.append((*takes, part, positions[start:end], samples[start:end]))
    return groups


def first(groups: list[Alike], full: Open) -> tuple[Alike, int]:
    """`_hardest` of an empty row, which every sample fits."""
    full_positions = full[0]
    parts = [max(part, lengths[-1] / full_positions) for _, _, _, part, lengths, _ in groups]
    group = groups[parts.index(max(parts))]
    return group, len(group[4]) - 1


def spare_of(positions: int, scarce: int, full_positions: int, full_scarce: int) -> tuple[int, int]:
    """Positions and scarce budget that a row need not use, as the samples that are left need more of the other.

    positions, scarce: what these samples take in all. A full row's share, were they spread evenly over rows, is all of
    the one budget, and of the other so much less.
    """
    if positions * full_scarce >= scarce * full_positions:
        return 0, full_scarce + -scarce * full_positions // max(positions, 1)
    return full_positions + -positions * full_scarce // scarce, 0


def unfillable(groups: list[Alike], most: int) -> list[int]:
    """Of 0 to `most` open units of the scarce budget, how many no samples of these groups could fill together."""
    sums = 1  # bit n: some samples take n together, each of any number
    for size in {takes for takes, *_ in groups if takes}:
        for _ in range(most // size):
            sums |= sums << size & (2 << most) - 1
    filled = itertools.accumulate((left if sums >> left & 1 else 0 for left in range(most + 1)), max)
    return [left - largest for left, largest in enumerate(filled)]
