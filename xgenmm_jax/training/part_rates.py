"""Rates and decay of parts of a model, by path prefix, and the table that says what trains and how."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
import math
from typing import Any, NamedTuple

import jax
import optax
from rich.table import Table

from xgenmm_jax.models.lora import is_below
from xgenmm_jax.ops.partitioning import path_name

Params = Any
"""A tree of arrays; where a subtree is cut out its leaves are None."""


@dataclass(frozen=True)
class PartRate:
    """What differs in a part from the run's optimizer; None: nothing.

    peak_lr: the rate at its peak; it rises and falls as the run's does. weight_decay: decoupled, times the part's rate.
    """

    peak_lr: float | None = None
    weight_decay: float | None = None

    def __post_init__(self):
        for name in ("peak_lr", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:  # False for nan too
                raise ValueError(f"optimizer.parts: got {name} {value}, wanted a finite number, 0 or more.")

    @property
    def is_set(self) -> bool:
        return self.peak_lr is not None or self.weight_decay is not None


@dataclass(frozen=True)
class PartRates:
    """Of the three parts, and of further path prefixes, ("decoder/layers/o_proj", PartRate(...)). The longest prefix of
    a parameter's path decides; a single part is a prefix too. `freeze` is what stops a part from training."""

    vision: PartRate = PartRate()
    connector: PartRate = PartRate()
    decoder: PartRate = PartRate()
    further: tuple[tuple[str, PartRate], ...] = ()

    @property
    def prefixes(self) -> tuple[tuple[str, PartRate], ...]:
        """Those that say something, the longest first."""
        named = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "further"]
        return tuple(sorted(((p, r) for p, r in (*named, *self.further) if r.is_set), key=lambda item: -len(item[0])))

    def of(self, name: str) -> PartRate:
        """What holds for a parameter, by its path."""
        return next((rate for prefix, rate in self.prefixes if is_below(name, prefix)), PartRate())

    def check(self, names: list[str]) -> None:
        """Raises ValueError for a prefix that names no parameter."""
        for prefix, _ in self.prefixes:
            if not any(is_below(name, prefix) for name in names):
                parts = ", ".join(sorted({name.split("/")[0] for name in names}))
                raise ValueError(f"optimizer.parts: '{prefix}' names no parameter; the parts are {parts}.")


def by_part(rates: PartRates, peak_lr: float, weight_decay: float, decays: Any) -> optax.GradientTransformation:
    """Behind an optimizer of rate 1 without decay: each part's decay and its rate by the run's `peak_lr`.

    decays: parameters -> a tree with True where decay applies.
    """

    def update(updates: Params, state: optax.EmptyState, params: Params | None = None):
        def of_leaf(path: tuple, leaf: Any, param: Any, has_decay: bool) -> Any:
            rate = rates.of(path_name(path))
            decay = weight_decay if rate.weight_decay is None else rate.weight_decay
            if has_decay and decay:
                leaf = leaf - decay * param
            return leaf if rate.peak_lr is None else leaf * (rate.peak_lr / peak_lr)

        return jax.tree_util.tree_map_with_path(of_leaf, updates, params, decays(params)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class PartRow(NamedTuple):
    """A row of the table of parts. Counts are of single numbers."""

    part: str
    parameters: int
    trained: int
    peak_lr: float
    """Of what trains in it."""
    weight_decay: float


def part_rows(params: Params, trainable: Any, rates: PartRates, peak_lr: float, weight_decay: float) -> list[PartRow]:
    """What trains, by part and by the further prefixes that rates name; each parameter counts in one row.

    params: shapes suffice.
    """
    prefixes = [prefix for prefix, _ in rates.prefixes]
    sums: dict[str, list[int]] = {}
    for (path, leaf), trains in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(trainable), strict=True
    ):
        name = path_name(path)
        row = next((prefix for prefix in prefixes if is_below(name, prefix)), name.split("/")[0])
        count = sums.setdefault(row, [0, 0])
        count[0] += leaf.size
        count[1] += leaf.size if trains else 0
    return list(_rows(sums, rates, peak_lr, weight_decay))


def _rows(sums: dict[str, list[int]], rates: PartRates, peak_lr: float, weight_decay: float) -> Iterator[PartRow]:
    for part, (parameters, trained) in sums.items():
        rate = rates.of(part)
        yield PartRow(
            part,
            parameters,
            trained,
            peak_lr if rate.peak_lr is None else rate.peak_lr,
            weight_decay if rate.weight_decay is None else rate.weight_decay,
        )


def table(rows: list[PartRow]) -> Table:
    """For people: part, parameters, what trains of them, rate and decay."""
    result = Table(box=None, pad_edge=False)
    for title in ("part", "parameters", "trained", "rate", "decay"):
        result.add_column(title, justify="left" if title == "part" else "right")
    for row in rows:
        has_rate = row.trained > 0
        result.add_row(
            row.part,
            f"{row.parameters:,}",
            f"{row.trained:,}" if has_rate else "frozen",
            f"{row.peak_lr:g}" if has_rate else "",
            f"{row.weight_decay:g}" if has_rate else "",
        )
    return result
