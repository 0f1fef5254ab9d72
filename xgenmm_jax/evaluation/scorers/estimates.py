"""Scores with their standard errors.

A score is a sum of contributions of groups of examples that hang together (the questions about one image, the rotations
of one question), and each group's contribution to its deviation is kept. So the error of a sum, a mean of means, a
ratio such as F1 follows from the groups' contributions to it (the linearised or "sandwich" estimate), and scores that
share groups may be combined.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import math
from typing import NamedTuple


class Term(NamedTuple):
    """One example's part of a ratio. group: examples of one group are not independent."""

    group: Hashable
    numerator: float
    denominator: float = 1.0
    is_unparsed: bool = False


@dataclass(frozen=True)
class Estimate:
    """A score, its standard error and what it rests on.

    value: in the unit that its benchmark prints; nan where there is none. items: examples; unparsed: those among them
    of whose answers nothing could be read. note: why there is no value, or what a reader must know of it.
    """

    value: float
    items: int = 0
    unparsed: int = 0
    note: str = ""
    influence: Mapping[Hashable, float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def stderr(self) -> float:
        """Of the value, in its unit; nan for fewer than two groups."""
        count = len(self.influence)
        if count < 2 or math.isnan(self.value):
            return math.nan
        return math.sqrt(count / (count - 1) * sum(part * part for part in self.influence.values()))


def ratio(terms: Iterable[Term], scale: float = 100.0) -> Estimate:
    """scale * sum of numerators / sum of denominators; 0 where the denominators sum to 0."""
    terms = list(terms)
    numerator = math.fsum(term.numerator for term in terms)
    denominator = math.fsum(term.denominator for term in terms)
    value = numerator / denominator if denominator else 0.0
    influence: dict[Hashable, float] = {}
    for term in terms:
        part = (term.numerator - value * term.denominator) / denominator if denominator else 0.0
        influence[term.group] = influence.get(term.group, 0.0) + scale * part
    return Estimate(scale * value, len(terms), sum(term.is_unparsed for term in terms), influence=influence)


def mean(values: Sequence[float], groups: Sequence[Hashable] | None = None, unparsed: int = 0) -> Estimate:
    """The mean of scores in [0, 1], in percent. groups: of each; by default each by itself."""
    groups = range(len(values)) if groups is None else groups
    estimate = ratio(Term(group, value) for group, value in zip(groups, values, strict=True))
    return Estimate(estimate.value, len(values), unparsed, influence=estimate.influence)


def combine(weighted: Iterable[tuple[float, Estimate]]) -> Estimate:
    """The weighted sum of scores. Groups of the same name are the same examples; items and unparsed are added up."""
    weighted = list(weighted)
    influence: dict[Hashable, float] = {}
    for weight, estimate in weighted:
        for group, part in estimate.influence.items():
            influence[group] = influence.get(group, 0.0) + weight * part
    return Estimate(
        math.fsum(weight * estimate.value for weight, estimate in weighted),
        sum(estimate.items for _, estimate in weighted),
        sum(estimate.unparsed for _, estimate in weighted),
        influence=influence,
    )


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of scores."""
    return combine([(1 / len(estimates), estimate) for estimate in estimates])
