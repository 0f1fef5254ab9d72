"""Lengths of samples to pack: drawn as web data are, or read from a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import Int64
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xgenmm_jax.data.anyres import GRIDS_12, AnyRes
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.rows import packing
from xgenmm_jax.data.rows.packing import Size

VISION_TOKENS = 128
BASE_RESOLUTION, ANY_RESOLUTION = AnyRes(grids=()), AnyRes(grids=GRIDS_12)
CAPTIONS = {90: 0.5, 14: 0.25, 160: 0.15, 60: 0.1}
"""Median tokens of captions, and their shares."""


class Drawn(NamedTuple):
    """A sample: tokens of its text, and the crops of each of its images."""

    text_tokens: int
    crops: tuple[int, ...]


@dataclass(frozen=True)
class Mixture:
    """Samples of one kind, or half of them captions and half documents."""

    name: str
    kind: Literal["captions", "documents", "both"]
    length: int
    anyres: AnyRes


MIXTURES = (
    Mixture("captions", "captions", 2048, BASE_RESOLUTION),
    Mixture("interleaved", "documents", 4096, BASE_RESOLUTION),
    Mixture("stage-1 mix", "both", 4096, BASE_RESOLUTION),
    Mixture("any-res captions", "captions", 4096, ANY_RESOLUTION),
    Mixture("any-res mix", "both", 4096, ANY_RESOLUTION),
)


def draw(mixture: Mixture, count: int, seed: int) -> list[Drawn]:
    """Captions of one image; documents of some 650 tokens and three images, eight at most."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        if mixture.kind == "documents" or (mixture.kind == "both" and rng.random() < 0.5):
            tokens, images = _log_normal(rng, 650, 0.8, 20, 6000), int(min(rng.geometric(0.33), 8))
        else:
            median = rng.choice(list(CAPTIONS), p=list(CAPTIONS.values()))
            tokens, images = _log_normal(rng, median, 0.5, 1, 6000), 1
        sizes = [image_px(rng) if mixture.anyres.grids else (384, 384) for _ in range(images)]
        drawn.append(Drawn(tokens, crops_of(sizes, mixture.anyres)))
    return drawn


def _log_normal(rng: np.random.Generator, median: float, width: float, least: int, most: int) -> int:
    return int(min(max(rng.lognormal(np.log(median), width), least), most))


def image_px(rng: np.random.Generator) -> tuple[int, int]:
    """Some 550 px wide, a little wider than high."""
    width = np.clip(rng.lognormal(np.log(550), 0.5), 64, 4000)
    return round(width), max(1, round(width / np.exp(rng.normal(0.15, 0.35))))


def crops_of(sizes_px: Sequence[tuple[int, int]], anyres: AnyRes) -> tuple[int, ...]:
    """Crops of images of (width, height) pixels."""
    images = [LazyImage(size_px, _no_pixels) for size_px in sizes_px]
    return tuple(layout.crops for layout in packing.layouts_of(images, anyres))


def _no_pixels():
    raise AssertionError("lengths have no pixels")


def read(path: Path, anyres: AnyRes, count: int) -> list[Drawn]:
    """The first `count` samples of a parquet file.

    Columns: `tokens` of the text, `width` and `height`, lists of the images' pixels; or `positions`, vision tokens
    included, and `crops`, of which all are one image.

    Raises:
        ValueError: no such file, not parquet, other columns, negative or missing numbers.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            columns = next(
                (c for c in (("tokens", "width", "height"), ("positions", "crops")) if names >= set(c)), None
            )
            if columns is None:
                raise ValueError(
                    f"packing: {path} has the columns {sorted(names)}; wanted positions and crops, or tokens, width "
                    "and height."
                )
            table = pa.Table.from_batches(_first(file, columns, count)).slice(0, count)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"packing: {path} cannot be read as parquet ({error}); check the path.") from error
    rows = list(zip(*(table[name].to_pylist() for name in columns), strict=True))
    drawn = []
    for number, row in enumerate(rows):
        try:
            drawn.append(_sample(row, anyres))
        except (TypeError, ValueError):
            wanted = "counts of 0 or more" if len(row) == 2 else "a count and two lists of pixels, equally long"
            raise ValueError(f"packing: row {number} of {path} is {row}; {columns} must be {wanted}.") from None
    return drawn


def _first(file: pq.ParquetFile, columns: Sequence[str], count: int) -> list[pa.RecordBatch]:
    """Enough of the file for `count` rows, one batch at least."""
    batches, rows = [], 0
    for batch in file.iter_batches(batch_size=count, columns=list(columns)):
        batches.append(batch)
        rows += batch.num_rows
        if rows >= count:
            return batches
    if not rows:
        raise ValueError("packing: the file has no rows; give one of samples.")
    return batches


def _sample(row: tuple, anyres: AnyRes) -> Drawn:
    if len(row) == 2:
        positions, crops = map(int, row)
        text = positions - crops * VISION_TOKENS
        if crops < 0 or text < 0:
            raise ValueError
        return Drawn(text, (crops,) if crops else ())
    tokens, widths, heights = row
    sizes = list(zip(map(int, widths), map(int, heights), strict=True))
    if int(tokens) < 0 or any(side < 1 for size in sizes for side in size):
        raise ValueError
    return Drawn(int(tokens), crops_of(sizes, anyres))


def fitting(drawn: Sequence[Drawn], length: int, crops: int) -> Int64[np.ndarray, "n 4"]:
    """Sizes of the samples, cut to rows of so many positions and crops.

    Images are left off from the end, with their part of the text, roughly as `packing.fit` cuts documents; a sample of
    which nothing is left is left out.
    """
    sizes = []
    for text, its_crops in drawn:
        while its_crops and (text + sum(its_crops) * VISION_TOKENS > length or sum(its_crops) > crops):
            kept = len(its_crops) - 1
            text, its_crops = text * kept // len(its_crops), its_crops[:kept]
            if not kept:
                text = 0
        if 0 < text + sum(its_crops) <= length:
            sizes.append(Size(text + sum(its_crops) * VISION_TOKENS, sum(its_crops), len(its_crops), 1))
    return packing.array_of(sizes)


def balance(drawn: Sequence[Drawn], length: int) -> float:
    """Crops of a row at which positions and crops need as many rows, when samples are cut to these rows; 1 or more."""
    crops = max((max(one.crops, default=1) for one in drawn), default=1)
    while True:
        positions, needed = fitting(drawn, length, crops)[:, :2].sum(axis=0).tolist()
        at = max(needed * length / max(positions, 1), 1.0)
        # More crops a row leave longer samples, so the point moves up, by less than the room does.
        if round(at) <= crops:
            return at
        crops += 1
