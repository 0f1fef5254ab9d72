"""Rows of few samples, each the best of several ways to fill it up: dearer than `filling.py` alone, and fuller."""

from bisect import bisect_right
import itertools
import math

import numpy as np

from xgenmm_jax.data.rows.groups import IMBALANCE, UNFILLABLE, Alike, Open, first, spare_of, unfillable

SHORTEST_EVERY = 64
"""Rows after which `LookAhead` looks anew what the shortest samples are; in between they can only become longer."""
WIDTHS = (12, 3, 2, 1)
"""Samples that `LookAhead` tries as a row's second, third, fourth and any later one."""
LOOKS = 32
"""For each sample of a window, how often `LookAhead` looks what comes next; after that it fills rows up in one way, so
that many small samples behind a large one cost no more."""
SCARCE, EACH = 1.5, 0.025
"""Weights of a full row's open scarce budget beside its open positions, as parts of a row, and of each sample in it."""

_Way = tuple[int, int, int, Alike]
"""A sample that may come next: its score, the number of its group, its place in it, and the group."""


class LookAhead:
    """Rows of all samples, which are taken out of `groups`: each is the best of several ways to fill it up.

    A row starts with the hardest sample. Of those that `filling._balanced` would choose among, the best few are each
    tried as its second, with each the best few as its third, and so on (`WIDTHS`). Of the full rows that come out, the
    one that leaves least open is taken, each sample counting a little: small ones fit anywhere later.

    The scarce budget is counted by `worth_of`.
    """

    def __init__(self, groups: list[Alike], full: Open):
        self._groups, self._full = groups, full
        self._whole, self._worth = worth_of(groups, full[1])
        self._lost = unfillable(groups, full[1])
        self._looks = LOOKS * sum(len(lengths) for *_, lengths, _ in groups)

    def rows(self) -> list[list[int]]:
        rows = []
        positions = sum(sum(lengths) for *_, lengths, _ in self._groups)
        scarce = sum(self._worth[takes] * len(lengths) for takes, _, _, _, lengths, _ in self._groups)
        while self._groups:
            self._spare = spare_of(positions, scarce, self._full[0], self._whole)
            self._goals = self._full[0] - self._spare[0], max(self._whole - self._spare[1], 1)
            if len(rows) % SHORTEST_EVERY == 0:
                self._shortest = _shortest(self._groups, self._full)
            self._tried: list[tuple[Alike, int]] = []
            self._least = math.inf
            group, index = first(self._groups, self._full)
            self._search([(0, 0, index, group)], self._full, self._whole)
            rows.append(self._taken())
            positions -= self._full[0] - self._left[0]
            scarce -= self._whole - self._left_worth
        return rows

    def _search(self, ways: list[_Way], left: Open, left_worth: int) -> None:
        """Adds each of these samples to the row of `_tried`, fills it up in all ways, and keeps the best in `_best`."""
        open_positions, open_scarce, open_third, open_fourth = left
        (goal_positions, goal_scarce), (spare_positions, spare_worth) = self._goals, self._spare
        tried, worth, shortest = self._tried, self._worth, self._shortest
        width = WIDTHS[min(len(tried), len(WIDTHS) - 1)] if self._looks > 0 else 1
        for _, _, index, group in ways:
            scarce, third, fourth, _, lengths, _ = group
            positions = lengths[index]
            after = open_positions - positions, open_scarce - scarce, open_third - third, open_fourth - fourth
            after_worth = left_worth - worth[scarce]
            further = None
            if after[0] >= shortest[after[1]]:
                # Out of its group until all that follows it has been tried; empty groups stay among the groups.
                del lengths[index]
                tried.append((group, positions))
                further = self._ranked(after, after_worth, width)
                if further:
                    self._search(further, after, after_worth)
                tried.pop()
                lengths.insert(index, positions)
            if not further:
                v, u = (after[0] - spare_positions) / goal_positions, (after_worth - spare_worth) / goal_scarce
                score = v + SCARCE * u + EACH * len(tried)
                if score < self._least:
                    self._least, self._left, self._left_worth = score, after, after_worth
                    self._best = [*tried, (group, positions)]

    def _ranked(self, left: Open, left_worth: int, width: int) -> list[_Way]:
        """The samples that fit, best first, by the score of `filling._balanced`; at most `width`, two of a group."""
        open_positions, open_scarce, open_third, open_fourth = left
        goal_positions, goal_scarce = self._goals
        positions_to_goal, worth_to_goal = open_positions - self._spare[0], left_worth - self._spare[1]
        more, less, worth, lost = IMBALANCE + 1, IMBALANCE - 1, self._worth, self._lost
        weight = UNFILLABLE * goal_positions * self._whole // self._full[1]
        self._looks -= 1
        ranked = []
        for number, group in enumerate(self._groups):
            scarce, third, fourth, _, lengths, _ = group
            if scarce > open_scarce:
                break
            if not lengths or lengths[0] > open_positions or third > open_third or fourth > open_fourth:
                continue
            u = (worth_to_goal - worth[scarce]) * goal_positions
            w = lost[open_scarce - scarce] * weight
            balanced = positions_to_goal - -(-u // goal_scarce)
            index = bisect_right(lengths, balanced if balanced < open_positions else open_positions)
            if index:
                v = (positions_to_goal - lengths[index - 1]) * goal_scarce
                ranked.append((more * v - less * u + w, number, index - 1, group))
            if index < len(lengths) and lengths[index] <= open_positions:
                v = (positions_to_goal - lengths[index]) * goal_scarce
                ranked.append((more * u - less * v + w, number, index, group))
        if len(ranked) > 1:
            ranked.sort()
        return ranked[:width]

    def _taken(self) -> list[int]:
        """Takes the samples of `_best` out of their groups, and groups without samples away."""
        row, kinds = [], len(self._groups)
        for group, positions in self._best:
            lengths, samples = group[4:]
            index = bisect_right(lengths, positions) - 1  # the earliest of equal ones
            del lengths[index]
            row.append(samples.pop(index))
            if not lengths:
                self._groups.remove(group)
        if len(self._groups) < kinds:
            self._lost = unfillable(self._groups, self._full[1])
        return row


def _shortest(groups: list[Alike], full: Open) -> list[int]:
    """Positions of the shortest sample that 0, 1, ... units of the scarce budget are enough for."""
    shortest = [full[0] + 1] * (full[1] + 1)
    for scarce, _, _, _, lengths, _ in groups:
        shortest[scarce] = min(shortest[scarce], lengths[0])
    return list(itertools.accumulate(shortest, min))


def worth_of(groups: list[Alike], most: int) -> tuple[int, list[int]]:
    """What 0 to `most` units of the scarce budget are worth, and what a whole row is, in units of their own.

    Where a row has 24 crops, samples of 13 exclude each other and so cost more than 13 / 24 of it. A dual feasible
    function f says how much: the f of any samples that fit a row add up to 1 at most, so the sum over all samples is a
    bound of the number of rows. Of Fekete and Schepers' u(k) = floor((k + 1) x) / k, x where that would be exact, the
    one with the highest bound is taken, two parts of it to one of the plain share x, which is right where samples are
    small. Source: S. Fekete, J. Schepers, New classes of fast lower bounds for bin packing problems, 2001.
    """
    counts = np.zeros(most + 1, np.int64)
    for takes, _, _, _, lengths, _ in groups:
        counts[takes] += len(lengths)
    units = np.arange(most + 1)
    bounds = []
    for k in range(1, max(most, 2)):
        exact = (k + 1) * units % most == 0
        values = np.where(exact, k * units, (k + 1) * units // most * most)  # of k * most
        bounds.append((float(counts @ values) / (k * most), k, values))
    _, k, values = max(bounds, key=lambda bound: bound[0])  # the first of equal ones
    return 3 * k * most, (2 * values + k * units).tolist()
