"""Weights of a mixture, and how often each source was drawn: its phases, in each of which the weights are others."""

from collections.abc import Sequence
from fractions import Fraction
import functools
import itertools
import math
from typing import NamedTuple

from jaxtyping import Int64
import numpy as np

MAX_PERIOD = 1 << 14
"""Weights are rounded to multiples of 1 / MAX_PERIOD where no smaller common denominator exists."""


class Phase(NamedTuple):
    """Weights of a mixture's first sources, in force from a window on; the sources after them are not drawn."""

    window: int
    weights: tuple[float, ...]


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
def period_of(parts: tuple[int, ...]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n1 k"]]:
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


def check_phases(phases: Sequence[Phase], sources: int) -> None:
    """Raises ValueError where they are no phases of a mixture of so many sources."""
    windows = [phase.window for phase in phases]
    if not windows or windows[0] != 0 or any(later <= earlier for earlier, later in itertools.pairwise(windows)):
        raise ValueError(
            f"data.phases: got weights from windows {windows} on; wanted windows that ascend, the first of them 0."
        )
    for window, weights in phases:
        if len(weights) > sources:
            raise ValueError(
                f"data.phases: got {len(weights)} weights from window {window} on for {sources} sources; give at most "
                "one a source, in their order."
            )
        if not any(weight > 0 for weight in weights):
            raise ValueError(
                f"data.phases: got the weights {tuple(weights)} from window {window} on; wanted at least one above 0."
            )
        shares([weight for weight in weights if weight != 0])


class Span(NamedTuple):
    """A phase as draws: its first sample, each component's draws a period, and those before the phase."""

    start: int
    parts: tuple[int, ...]
    before: tuple[int, ...]


@functools.lru_cache(maxsize=8)
def spans_of(phases: tuple[Phase, ...], sources: int, window_samples: int) -> list[Span]:
    """Phase by phase; the draws before one are counted from those of the phase before it, whole periods at once."""
    check_phases(phases, sources)
    spans: list[Span] = []
    for window, weights in phases:
        drawn = [component for component, weight in enumerate(weights) if weight != 0]
        parts = np.zeros(sources, np.int64)
        parts[drawn] = shares([weights[component] for component in drawn])
        start = window * window_samples
        before = drawn_before(spans[-1], start) if spans else (0,) * sources
        spans.append(Span(start, tuple(parts.tolist()), before))
    return spans


def drawn_before(span: Span, number: int) -> tuple[int, ...]:
    """How often each component was drawn before a sample of the stream that lies in the span or at its end."""
    _, counts = period_of(span.parts)
    periods, offset = divmod(number - span.start, len(counts) - 1)
    return tuple(
        before + periods * part + int(count)
        for before, part, count in zip(span.before, span.parts, counts[offset], strict=True)
    )


def span_at(spans: Sequence[Span], number: int) -> Span:
    """The one that a sample of the stream lies in."""
    return next(span for span in reversed(spans) if span.start <= number)
