"""The order of samples: a mixture as an infinite stream that any host can look up at any number.

Sample n of the stream is draw k of component m(n). Everything here is a pure function of integers, so hosts, workers
and resumed runs agree without talking.
"""

from collections.abc import Sequence
from fractions import Fraction
import functools
import math
from typing import NamedTuple

from jaxtyping import Int64, UInt64
import numpy as np

MAX_PERIOD = 1 << 14
"""Weights are rounded to multiples of 1 / MAX_PERIOD where no smaller common denominator exists."""

_ROUNDS = 5
# The last word of a key keeps these streams apart from each other and from that of a draw, whose key is
# (seed, component, record, epoch).
_PERMUTATION, _ROWS = 1, 2


class State(NamedTuple):
    """Where a run is in its data: the next row is `row` of `window`. The same on every host."""

    window: int = 0
    row: int = 0


class Draw(NamedTuple):
    """One sample of the stream before it is read."""

    component: int
    record: int
    epoch: int

    def rng(self, seed: int) -> np.random.Generator:
        """The source of every random choice inside the record."""
        return np.random.default_rng((seed, self.component, self.record, self.epoch))


def shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers in the ratio of the weights: draws per period of the stream.

    Example: (17.5, 2.5, 5) -> (7, 1, 2); weights without a common denominator up to MAX_PERIOD are rounded, and
    none to zero.
    """
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"mixture: weight {weight}; wanted a positive number. Leave out what is not to be drawn.")
    if not weights:
        raise ValueError("mixture: no component; give at least one (source, weight).")
    fractions = [Fraction(weight).limit_denominator(1_000_000) for weight in weights]
    denominator = math.lcm(*(fraction.denominator for fraction in fractions))
    parts = [int(fraction * denominator) for fraction in fractions]
    divisor = math.gcd(*parts)
    if 0 < divisor and min(parts) > 0 and sum(parts) // divisor <= MAX_PERIOD:
        return tuple(part // divisor for part in parts)
    total = sum(weights)
    return tuple(max(1, round(weight / total * MAX_PERIOD)) for weight in weights)


@functools.lru_cache(maxsize=8)
def _period(parts: tuple[int, ...]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n1 k"]]:
    """m(n) for one period, and how often each component was drawn before sample 0, 1, ..., n.

    The largest deficit against the shares is drawn next, the first component on ties. After a period of
    sum(parts) draws each component was drawn exactly its share, so the sequence repeats.
    """
    period = sum(parts)
    ratios = np.array(parts, np.int64)
    deficits = np.zeros(len(parts), np.int64)
    components = np.empty(period, np.int64)
    for n in range(period):
        deficits += ratios
        component = int(np.argmax(deficits))
        deficits[component] -= period
        components[n] = component
    counts = np.zeros((period + 1, len(parts)), np.int64)
    counts[1:] = np.cumsum(components[:, None] == np.arange(len(parts)), axis=0)
    return components, counts


def draws(weights: Sequence[float], lengths: Sequence[int], seed: int, start: int, count: int) -> list[Draw]:
    """Samples start .. start + count - 1 of the stream.

    lengths: records of each component. Draw k of a component is a random permutation of its records, a new one each
    epoch, at k mod length.
    """
    for length in lengths:
        if length < 1:
            raise ValueError(f"mixture: a source has {length} records; check its files or leave it out.")
    parts = shares(weights)
    components, counts = _period(parts)
    numbers = np.arange(start, start + count, dtype=np.int64)
    rounds, offsets = np.divmod(numbers, len(components))
    drawn = components[offsets]
    ks = rounds * np.array(parts, np.int64)[drawn] + counts[offsets, drawn]
    records, epochs = np.empty(count, np.int64), np.empty(count, np.int64)
    for component, length in enumerate(lengths):
        of_component = np.flatnonzero(drawn == component)
        epoch_of, index_of = np.divmod(ks[of_component], length)
        for epoch in np.unique(epoch_of):
            chosen = of_component[epoch_of == epoch]
            entropy = np.random.SeedSequence((seed, component, int(epoch), 0, _PERMUTATION))
            key = entropy.generate_state(_ROUNDS, np.uint64)
            records[chosen] = permute(index_of[epoch_of == epoch], length, key)
        epochs[of_component] = epoch_of
    return [Draw(*map(int, draw)) for draw in zip(drawn, records, epochs, strict=True)]


def permute(
    indices: Int64[np.ndarray, " n"], length: int, key: UInt64[np.ndarray, " rounds"]
) -> Int64[np.ndarray, " n"]:
    """Where a keyed permutation of 0 .. length - 1 takes these indices, without holding the permutation.

    A Feistel network over the next even power of two; values that fall outside walk on until they are inside.
    """
    if length == 1:
        return np.zeros_like(indices)
    half_bits = np.uint64(-(-(length - 1).bit_length() // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    result = indices.astype(np.uint64)
    walking = np.ones(len(result), bool)
    while walking.any():
        value = result[walking]
        left, right = value >> half_bits, value & mask
        for round_key in key:
            left, right = right, left ^ (_mix(right + round_key) & mask)
        result[walking] = left << half_bits | right
        walking[walking] = result[walking] >= length
    return result.astype(np.int64)


def _mix(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """splitmix64's finaliser; overflow wraps."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_order(rows: int, seed: int, window: int) -> Int64[np.ndarray, " rows"]:
    """The order in which a window's packed rows are trained on."""
    return np.random.default_rng((seed, window, 0, 0, _ROWS)).permutation(rows).astype(np.int64)
