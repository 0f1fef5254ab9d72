"""What `filling.pack` is compared with: best fit, first fit, and the released code's padding."""

from collections.abc import Sequence

from jaxtyping import Int64
import numpy as np

from xgenmm_jax.data.rows.packing import Size


def best_fit(sizes: Sequence[Size], room: Size) -> list[list[int]]:
    """Each sample, largest first, goes where it leaves the least room; ties go to the earlier sample and row."""
    have = np.array(room, np.int64)
    need = np.array(sizes, np.int64).reshape(-1, len(room))
    # Positions and crops as parts of a row.
    parts = need[:, :2] / have[:2]
    largest_first = np.argsort(-parts.max(axis=1), kind="stable")
    left = np.empty((len(sizes), len(room)), np.int64)
    rows: list[list[int]] = []
    for sample in largest_first.tolist():
        open_ = left[: len(rows)]
        fitting = np.flatnonzero((open_ >= need[sample]).all(axis=1))
        if len(fitting):
            slack = ((open_[fitting, :2] - need[sample, :2]) / have[:2]).sum(axis=1)
            chosen = int(fitting[np.argmin(slack)])
            rows[chosen].append(sample)
        else:
            chosen = len(rows)
            rows.append([sample])
            left[chosen] = have
        left[chosen] -= need[sample]
    return rows


def first_fit(sizes: Sequence[Size], room: Size) -> list[list[int]]:
    """Each sample, in the order of the stream, goes into the first row that has room."""
    have = np.array(room, np.int64)
    need = np.array(sizes, np.int64).reshape(-1, len(room))
    left = np.empty((len(sizes), len(room)), np.int64)
    rows: list[list[int]] = []
    for sample in range(len(sizes)):
        fits = (left[: len(rows)] >= need[sample]).all(axis=1)
        chosen = int(np.argmax(fits)) if fits.any() else len(rows)
        if chosen == len(rows):
            rows.append([])
            left[chosen] = have
        rows[chosen].append(sample)
        left[chosen] -= need[sample]
    return rows


def padded(sizes: Sequence[Size], batch: int) -> Int64[np.ndarray, " n"]:
    """Positions of each sample's row as the released code pads: to the longest of `batch` samples of the stream.

    Crops are not padded there: those of a batch follow one another.
    """
    positions = np.array(sizes, np.int64).reshape(-1, len(Size._fields))[:, 0]
    if not len(positions):
        return positions
    starts = np.arange(0, len(positions), batch)
    longest = np.maximum.reduceat(positions, starts)
    return longest.repeat(np.diff([*starts, len(positions)]))
