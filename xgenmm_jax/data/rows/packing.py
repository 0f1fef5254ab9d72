"""The room of a row, what samples take of it, and cuts of what is too long. `filling.py` puts samples into rows.

A row has room for `length` positions, `crops` crops, `images` images and `segments` samples. No sample is split and
a preference pair stays together: two segments whose images are shared and counted once.
"""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass
import functools
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
