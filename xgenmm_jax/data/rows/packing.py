"""Which samples share a row: their sizes, cuts of what is too long, and packing under several budgets.

A row has room for `length` positions, `crops` crops, `images` images and `segments` samples. No sample is split and
a preference pair stays together: two segments whose images are shared and counted once.
"""

from bisect import bisect_right
from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass
import functools
import itertools
from typing import Literal, NamedTuple

from jaxtyping import Int32, Int64
import numpy as np

from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes, Layout
from xgenmm_jax.data.records import LazyImage, Sample
from xgenmm_jax.data.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class RowConfig:
    """The static shapes of a row.

    length: positions T, vision tokens included. crops: C. images: I. segments: samples at most (a pair is two).
    vision_tokens: Q, of each crop (resampler per crop or strip, MLP connector) or of each image (fixed sampling).
    too_long: what to do with a sample that no row can hold and that cannot be cut: "error", or "drop" it.
    """

    length: int
    crops: int
    images: int
    vision_tokens: int
    vision_tokens_per: Literal["crop", "image"] = "crop"
    segments: int = 64
    too_long: Literal["error", "drop"] = "error"

    def __post_init__(self):
        for name in ("length", "crops", "images", "vision_tokens", "segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"row: {name} is {getattr(self, name)}; wanted 1 or more.")

    def tokens_of(self, layout: Layout) -> int:
        """Positions that an image takes."""
        return self.vision_tokens * (layout.crops if self.vision_tokens_per == "crop" else 1)


class Size(NamedTuple):
    """What a sample takes of each budget of a row."""

    positions: int
    crops: int
    images: int
    segments: int


def budget(row: RowConfig) -> Size:
    return Size(row.length, row.crops, row.images, row.segments)


def array_of(sizes: Sequence[Size]) -> Int64[np.ndarray, "n 4"]:
    return np.array(sizes, np.int64).reshape(-1, len(Size._fields))


LAYOUTS = 2**15
"""Layouts that are remembered, by size and config: some 15 MB. One takes 20 microseconds to find."""

_layout = functools.lru_cache(maxsize=LAYOUTS)(anyres.layout)


def layouts_of(images: Sequence[LazyImage], config: AnyRes) -> tuple[Layout, ...]:
    return tuple(_layout(image.size_px, config) for image in images)


def measure(sample: Sample, layouts: Sequence[Layout], row: RowConfig) -> Size:
    """The size of a sample. Images are not decoded."""
    vision = sum(row.tokens_of(layout) - 1 for layout in layouts)
    positions = len(sample.token_ids) + vision
    segments = 1
    if sample.rejected_ids is not None:
        positions += len(sample.rejected_ids) + vision
        segments = 2
    return Size(positions, sum(layout.crops for layout in layouts), len(layouts), segments)


def fit(sample: Sample, config: AnyRes, row: RowConfig, tokenizer: Tokenizer) -> Sample | None:
    """The sample, cut where a row cannot hold it; None where `too_long="drop"` gives it up.

    Conversations end behind an answer, documents behind a chunk; a document whose first chunk is too long already,
    and plain text, are cut anywhere but inside an image. Pairs are never cut.

    Raises:
        ValueError: nothing supervised would be left, and `too_long="error"`.
    """
    layouts = layouts_of(sample.images, config)
    room = budget(row)
    size = measure(sample, layouts, row)
    if all(need <= have for need, have in zip(size, room, strict=True)):
        return sample
    # Where it may be cut: behind the last supervised end that fits, or, of documents, anywhere.
    cut = 0
    if sample.rejected_ids is None:
        used = _used_after(sample.token_ids, layouts, row, tokenizer)
        fits = np.all(used <= np.array(room[:3]), axis=1)
        longest = int(np.argmin(fits)) if not fits.all() else len(fits)  # `used` never falls
        ends = (sample.token_ids == tokenizer.end_id) | (sample.token_ids == tokenizer.end_of_chunk_id)
        cuts = np.flatnonzero(ends & sample.loss_mask) + 1
        cuts = cuts[cuts <= longest]
        if len(cuts):
            cut = int(cuts[-1])
        elif tokenizer.end_id not in sample.token_ids:
            cut = longest
    # The cut sample keeps the images whose `<image>` it keeps; it must have a target.
    if cut and sample.loss_mask[:cut].any():
        images = int(np.sum(sample.token_ids[:cut] == tokenizer.image_id))
        return dataclasses.replace(
            sample,
            token_ids=sample.token_ids[:cut],
            loss_mask=sample.loss_mask[:cut],
            images=sample.images[:images],
        )
    if row.too_long == "drop":
        return None
    raise ValueError(too_long(sample.id, size, row))


def _used_after(
    token_ids: Int32[np.ndarray, " n"], layouts: Sequence[Layout], row: RowConfig, tokenizer: Tokenizer
) -> Int64[np.ndarray, "n 3"]:
    """Positions, crops and images taken by each prefix of a sample."""
    costs = np.tile(np.array([1, 0, 0], np.int64), (len(token_ids), 1))
    images = [(row.tokens_of(layout), layout.crops, 1) for layout in layouts]
    costs[token_ids == tokenizer.image_id] = np.array(images, np.int64).reshape(-1, 3)
    return np.cumsum(costs, axis=0)


def excess(size: Size, row: RowConfig) -> str:
    """What of a sample a row has no room for: "24 positions exceed the row's 10"."""
    return " and ".join(
        f"{need} {name} exceed the row's {have}"
        for name, need, have in zip(Size._fields, size, budget(row), strict=True)
        if need > have
    )


def too_long(name: str, size: Size, row: RowConfig) -> str:
    """The error of a sample that no row can hold."""
    over = excess(size, row)
    field = over.split()[1].replace("positions", "length")
    return (
        f"row: sample {name} does not fit: {over}. It has {size.images} images of {size.crops} crops. Raise "
        f"row.{field}, take fewer crops with smaller anyres.grids, or set row.too_long=drop."
    )


IMBALANCE = 4
"""How much more than its room a row's imbalance counts in `_balanced`. Heavier fills any-res captions better, lighter
documents (docs/log/packing_scaling.md#two-budgets-in-step)."""

_Alike = tuple[int, int, int, float, list[int], list[int]]
"""Samples that take equally much of every budget but positions: of the scarce budget, of the third, of the fourth; the
largest of these as a part of a row; their positions, ascending; their numbers, of equal positions the earliest last.
A plain tuple, since named ones take four times as long to take apart."""

_Open = tuple[int, int, int, int]
"""What a row has left: positions, the scarce budget, the third, the fourth."""

_Choice = tuple[_Alike, int] | None
"""A sample, by its place in its group; None where none fits."""


def pack(sizes: Int64[np.ndarray, "n 4"], room: Size) -> list[list[int]]:
    """Rows as lists of sample numbers, each sample once, no budget exceeded; no sizes, no rows.

    sizes: what each sample takes, in the order of `Size`; each must fit `room`.

    A row starts with the hardest sample that is left, by its largest part of a budget, then takes what leaves
    positions and the scarcest of the other budgets most nearly in proportion, until nothing more fits. That is compared
    with taking the hardest that fits each time, which makes fewer rows where one budget has room to spare. Pure and the
    same everywhere: integers and single divisions of float64 decide. Of equal samples the earlier one is taken first.
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
    fewest = max(-(-total // most) for total, most in zip(totals, have, strict=True))
    best: list[list[int]] = []
    for in_step in (True, False):
        most = [have[axis] for axis in axes] + [1] * (3 - len(axes))
        full = (have[0], *most)
        rows = _fill(_alike(sizes, axes, full), full, totals[0], totals[scarce], in_step)
        if not best or len(rows) < len(best):
            best = rows
        if len(best) == fewest:
            break
    return best


def _implied(sizes: Int64[np.ndarray, "n 4"], have: list[int], axis: int, by: int) -> bool:
    """Whether rows within the budget `by` are always within that of `axis`: no sample takes a larger part of it."""
    return bool((sizes[:, axis] * have[by] <= sizes[:, by] * have[axis]).all())


def _alike(sizes: Int64[np.ndarray, "n 4"], axes: list[int], full: _Open) -> list[_Alike]:
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


def _fill(groups: list[_Alike], full: _Open, positions: int, scarce: int, in_step: bool) -> list[list[int]]:
    """Rows of all samples, which are taken out of `groups`. positions, scarce: what they take in all."""
    rows = []
    full_positions, full_scarce, full_third, full_fourth = full
    while groups:
        # A full row's share, were the rest spread evenly over rows: all of the one budget, and of the other so much.
        if positions * full_scarce >= scarce * full_positions:
            spare = 0, full_scarce + -scarce * full_positions // max(positions, 1)
        else:
            spare = full_positions + -positions * full_scarce // scarce, 0
        row: list[int] = []
        left = full
        chosen = _hardest(groups, full, full)
        while chosen is not None:
            group, index = chosen
            takes_scarce, takes_third, takes_fourth, _, lengths, samples = group
            # The earliest of equal samples.
            index = bisect_right(lengths, lengths[index], index) - 1
            row.append(samples.pop(index))
            left = (
                left[0] - lengths.pop(index), left[1] - takes_scarce, left[2] - takes_third, left[3] - takes_fourth
            )  # fmt: skip
            if not lengths:
                groups.remove(group)
            chosen = _balanced(groups, left, full, spare) if in_step else _hardest(groups, left, full)
        rows.append(row)
        positions -= full_positions - left[0]
        scarce -= full_scarce - left[1]
    return rows


def _hardest(groups: list[_Alike], left: _Open, full: _Open) -> _Choice:
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


def _balanced(groups: list[_Alike], left: _Open, full: _Open, spare: tuple[int, int]) -> _Choice:
    """The sample that fits and after which a row is fullest and most nearly in proportion.

    spare: positions and scarce budget that a row need not use, as the samples that are left need more of the other;
    without them a row is full. After a sample v of a full row's positions are open and u of its scarce budget, as
    parts; the sample of least `IMBALANCE * |v - u| + v + u` is chosen, in a group one of the two around v = u.
    """
    open_positions, open_scarce, open_third, open_fourth = left
    goal_positions, goal_scarce = full[0] - spare[0], max(full[1] - spare[1], 1)
    positions_to_goal, scarce_to_goal = open_positions - spare[0], open_scarce - spare[1]
    more, less = IMBALANCE + 1, IMBALANCE - 1
    least = None
    chosen_group, chosen_index = None, 0
    for group in groups:
        scarce, third, fourth, _, lengths, _ = group
        if scarce > open_scarce:
            break
        if lengths[0] > open_positions or third > open_third or fourth > open_fourth:
            continue
        # Both parts times both goals, so that they are integers. `lengths` up to `place` leave v >= u.
        u = (scarce_to_goal - scarce) * goal_positions
        balanced = positions_to_goal - -(-u // goal_scarce)
        index = bisect_right(lengths, balanced if balanced < open_positions else open_positions)
        if index:
            score = more * (positions_to_goal - lengths[index - 1]) * goal_scarce - less * u
            if least is None or score < least:
                chosen_group, chosen_index, least = group, index - 1, score
        if index < len(lengths) and lengths[index] <= open_positions:
            score = more * u - less * (positions_to_goal - lengths[index]) * goal_scarce
            if least is None or score < least:
                chosen_group, chosen_index, least = group, index, score
    return None if chosen_group is None else (chosen_group, chosen_index)
