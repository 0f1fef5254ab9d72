"""What an index says of records as a whole: how many, how large, and how many are bad by which reason."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
import math

from jaxtyping import Integer
import numpy as np

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.index import shapes as shapes_
from xgenmm_jax.data.index.sizes import ShardSizes
from xgenmm_jax.data.rows.fitting import fit_shapes
from xgenmm_jax.data.rows.packing import RowConfig


@dataclass
class Spread:
    """How often each number was seen."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, numbers: Integer[np.ndarray, " n"]) -> None:
        values, times = np.unique(numbers, return_counts=True)
        self.counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))

    def __bool__(self) -> bool:
        return bool(self.counts)

    def quantile(self, share: float) -> int:
        """The smallest number that `share` of all are not above; of 1, 2, 3, 4 the half is 2.

        Raises ValueError where nothing was seen.
        """
        rank, seen = max(1, math.ceil(share * self.counts.total())), 0
        for value, times in sorted(self.counts.items()):
            seen += times
            if seen >= rank:
                return value
        raise ValueError("data: nothing was counted.")

    @property
    def longest(self) -> int:
        return max(self.counts)


@dataclass
class Counts:
    """Of the records of some shards.

    bad: by reason; examples: of each reason the first record and what is wrong with it. spreads: of the samples, by
    what is counted: "tokens" (an image is one), "images", and of rows "crops" and "positions".
    """

    records: int = 0
    samples: int = 0
    dropped_images: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    spreads: dict[str, Spread] = field(default_factory=dict)

    def add_sizes(self, sizes: ShardSizes, shard: str, fitting: tuple[AnyRes, RowConfig] | None = None) -> None:
        """Counts the records of a shard. fitting: what decides about crops and positions."""
        shapes = sizes.shapes.take(np.flatnonzero(~shapes_.is_bad(sizes.shapes)))
        self.records += sizes.records
        self.samples += shapes.count
        self.dropped_images += sizes.dropped
        for number, (reason, detail) in sorted(sizes.bad.items()):
            self.bad[reason] += 1
            self.examples.setdefault(reason, (f"{shard}[{number}]", detail))
        self._spread("tokens", shapes_.tokens_of(shapes))
        self._spread("images", np.diff(shapes.image_ends, prepend=0))
        if fitting is not None:
            whole = fit_shapes(shapes, *fitting).whole
            self._spread("crops", whole[:, 1])
            self._spread("positions", whole[:, 0])

    def add(self, other: "Counts") -> None:
        self.records += other.records
        self.samples += other.samples
        self.dropped_images += other.dropped_images
        self.bad.update(other.bad)
        self.examples = other.examples | self.examples
        for name, spread in other.spreads.items():
            self.spreads.setdefault(name, Spread()).counts.update(spread.counts)

    def _spread(self, name: str, numbers: Integer[np.ndarray, " n"]) -> None:
        self.spreads.setdefault(name, Spread()).add(numbers)


def total(parts: Sequence[Counts]) -> Counts:
    """The counts of all parts together."""
    whole = Counts()
    for part in parts:
        whole.add(part)
    return whole
