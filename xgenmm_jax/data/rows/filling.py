"""Which samples share a row: vector packing of a window's sizes, whole and the same everywhere."""

from bisect import bisect_right

from jaxtyping import Int64
import numpy as np

from xgenmm_jax.data.rows.groups import IMBALANCE, UNFILLABLE, Alike, Open, alike, first, spare_of, unfillable
from xgenmm_jax.data.rows.look_ahead import LookAhead
from xgenmm_jax.data.rows.packing import Size

ENOUGH, FEW_SAMPLES, MANY_GROUPS = 1.05, 4, 64
"""`LookAhead` is left out where rows are at most ENOUGH times a bound of the fewest; where they hold more than
FEW_SAMPLES in the mean, as small samples fill rows well one by one; and above MANY_GROUPS kinds, which cost time."""

_Choice = tuple[Alike, int] | None
"""A sample, by its place in its group; None where none fits."""


def pack(sizes: Int64[np.ndarray, "n 4"], room: Size) -> list[list[int]]:
    """Rows as lists of sample numbers, each sample once, no budget exceeded; no sizes, no rows.

    sizes: what each sample takes, in the order of `Size`; each must fit `room`.

    A row starts with the hardest sample that is left, by its largest part of a budget, then takes what leaves
    positions and the scarcest of the other budgets most nearly in proportion, until nothing more fits. That is compared
    with taking the hardest that fits each time, which makes fewer rows where one budget has room to spare, and, where
    rows of few samples stay far from full, with `LookAhead`. Pure and the same everywhere: integers and float64 decide,
    one operation after the other. Of equal samples the earlier one is taken first.
    """
    assert (sizes >= 0).all() and (sizes <= np.array(room)).all(), "a sample exceeds the room of a row"
    if not len(sizes):
        return []
    totals, have = sizes.sum(axis=0).tolist(), list(room)
    # The budget that most rows would be needed for, were it alone; ties go to crops, then images.
    scarce = max((1, 2, 3), key=lambda axis: (totals[axis] / have[axis], -axis))
    axes = [scarce]
    for axis in (1, 2, 3):
        if axis != scarce and not any(_implied(sizes, have, axis, by) for by in (0, scarce)):
            axes.append(axis)
    full = (have[0], *(have[axis] for axis in axes), *[1] * (3 - len(axes)))
    fewest = max(-(-total // most) for total, most in zip(totals, have, strict=True))
    best = _in_step(alike(sizes, axes, full), full)
    if len(best) > fewest:
        best = min(best, _hardest_first(alike(sizes, axes, full), full), key=len)
    if len(best) > ENOUGH * fewest and len(sizes) <= FEW_SAMPLES * len(best):
        groups = alike(sizes, axes, full)
        if len(groups) <= MANY_GROUPS:
            best = min(best, LookAhead(groups, full).rows(), key=len)
    return best


def _implied(sizes: Int64[np.ndarray, "n 4"], have: list[int], axis: int, by: int) -> bool:
    """Whether rows within the budget `by` are always within that of `axis`: no sample takes a larger part of it."""
    return bool((sizes[:, axis] * have[by] <= sizes[:, by] * have[axis]).all())


def _hardest_first(groups: list[Alike], full: Open) -> list[list[int]]:
    """Rows of all samples, which are taken out of `groups`: always the hardest that fits."""
    rows = []
    while groups:
        row: list[int] = []
        left, chosen = full, first(groups, full)
        while chosen is not None:
            left = _take(groups, chosen, left, row)
            chosen = _hardest(groups, left, full)
        rows.append(row)
    return rows


def _in_step(groups: list[Alike], full: Open) -> list[list[int]]:
    """Rows of all samples, which are taken out of `groups`: positions and the scarce budget in step."""
    rows = []
    positions = sum(sum(lengths) for *_, lengths, _ in groups)
    scarce = sum(takes * len(lengths) for takes, _, _, _, lengths, _ in groups)
    lost, kinds = unfillable(groups, full[1]), len(groups)
    while groups:
        spare = spare_of(positions, scarce, full[0], full[1])
        row: list[int] = []
        left, chosen = full, first(groups, full)
        while chosen is not None:
            left = _take(groups, chosen, left, row)
            if len(groups) < kinds:
                lost, kinds = unfillable(groups, full[1]), len(groups)
            chosen = _balanced(groups, left, full, spare, lost)
        rows.append(row)
        positions -= full[0] - left[0]
        scarce -= full[1] - left[1]
    return rows


def _take(groups: list[Alike], chosen: tuple[Alike, int], left: Open, row: list[int]) -> Open:
    """Puts a sample into a row and says what is left; a group without samples goes."""
    group, index = chosen
    takes_scarce, takes_third, takes_fourth, _, lengths, samples = group
    index = bisect_right(lengths, lengths[index], index) - 1  # the earliest of equal ones
    row.append(samples.pop(index))
    left = (left[0] - lengths.pop(index), left[1] - takes_scarce, left[2] - takes_third, left[3] - takes_fourth)
    if not lengths:
        groups.remove(group)
    return left


def _hardest(groups: list[Alike], left: Open, full: Open) -> _Choice:
    """The sample that fits and takes the largest part of any budget."""
    open_positions, open_scarce, open_third, open_fourth = left
    full_positions = full[0]
    chosen, largest = None, -1.0
    for group in groups:
        scarce, third, fourth, part, lengths, _ = group
        if scarce > open_scarce:
            break
        if lengths[0] > open_positions or third > open_third or fourth > open_fourth:
            continue
        index = bisect_right(lengths, open_positions) - 1
        part = max(part, lengths[index] / full_positions)
        if part > largest:
            chosen, largest = (group, index), part
    return chosen


def _balanced(groups: list[Alike], left: Open, full: Open, spare: tuple[int, int], lost: list[int]) -> _Choice:
    """The sample that fits and after which a row is fullest and most nearly in proportion.

    spare: see `spare_of`; without it a row is full. lost: see `unfillable`. After a sample v of a full row's positions
    are open and u of its scarce budget, as parts, and w of u is lost; the sample of least
    `IMBALANCE * |v - u| + v + u + UNFILLABLE * w` is chosen, in a group one of the two around v = u.
    """
    open_positions, open_scarce, open_third, open_fourth = left
    goal_positions, goal_scarce = full[0] - spare[0], max(full[1] - spare[1], 1)
    positions_to_goal, scarce_to_goal = open_positions - spare[0], open_scarce - spare[1]
    more, less, weight = IMBALANCE + 1, IMBALANCE - 1, UNFILLABLE * goal_positions
    least = None
    chosen_group, chosen_index = None, 0
    for group in groups:
        scarce, third, fourth, _, lengths, _ = group
        if scarce > open_scarce:
            break
        if lengths[0] > open_positions or third > open_third or fourth > open_fourth:
            continue
        # Both parts times both goals, so that they are integers. `lengths` up to `balanced` leave v >= u.
        u = (scarce_to_goal - scarce) * goal_positions
        w = lost[open_scarce - scarce] * weight
        balanced = positions_to_goal - -(-u // goal_scarce)
        index = bisect_right(lengths, balanced if balanced < open_positions else open_positions)
        if index:
            score = more * (positions_to_goal - lengths[index - 1]) * goal_scarce - less * u + w
            if least is None or score < least:
                chosen_group, chosen_index, least = group, index - 1, score
        if index < len(lengths) and lengths[index] <= open_positions:
            score = more * u - less * (positions_to_goal - lengths[index]) * goal_scarce + w
            if least is None or score < least:
                chosen_group, chosen_index, least = group, index, score
    return None if chosen_group is None else (chosen_group, chosen_index)
