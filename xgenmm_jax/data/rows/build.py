"""Rows as arrays: the one module that writes into a `Batch`.

`Batch.empty` gives rows of padding; `write` lays a sample into one of them, its text with `add_text` and its images
with `add_image`, which callers without samples (`api/rows.py`, `generation/vision_tokens.py`) use by themselves.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float32, Int, Int32, UInt8
import numpy as np
import PIL.Image

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes, Layout
from xgenmm_jax.data.errors import BAD_IMAGE, Skip, is_of_a_record
from xgenmm_jax.data.records import LazyImage, Sample
from xgenmm_jax.data.rows import packing
from xgenmm_jax.data.rows.order import Draw
from xgenmm_jax.data.rows.packing import RowConfig, Size
from xgenmm_jax.data.rows.quarantine import skip_of
from xgenmm_jax.data.text.tokenizer import Tokenizer

CropPixels = UInt8[np.ndarray, "_ S S 3"] | Float32[np.ndarray, "_ S S 3"]
"""The crops of one image, the global view first."""


def build_rows(
    rows: Sequence[Sequence[Sample]],
    row: RowConfig,
    config: AnyRes,
    tokenizer: Tokenizer,
    skipped: list[Skip] | None = None,
) -> Batch:
    """Packed rows as arrays; decodes the images. Each list of samples must fit a row.

    skipped: a Skip is appended for each sample with an image that cannot be decoded. Its positions stay padding, and
    the samples behind it stay where they are: segments 1 1 2 2 3 0 become 1 1 0 0 3 0. None: such an image is an
    error.
    """
    batch = empty_rows(len(rows), row, config, tokenizer.pad_id)
    for number, samples in enumerate(rows):
        out = row_of(batch, number)
        used = Size(0, 0, 0, 0)
        for sample in samples:
            layouts = packing.layouts_of(sample.images, config)
            size = packing.measure(sample, layouts, row)
            if decode(sample, layouts, config, out.pixels[used.crops : used.crops + size.crops], skipped):
                write(out, sample, layouts, used, row, tokenizer.image_id)
            used = added(used, size)
    return batch


def added(used: Size, size: Size) -> Size:
    """What is taken of a row with one more sample in it."""
    return Size(*(before + more for before, more in zip(used, size, strict=True)))


def empty_rows(rows: int, row: RowConfig, config: AnyRes, pad_id: int) -> Batch:
    """Rows of nothing but padding, in the shapes of training."""
    return Batch.empty(rows, row.length, row.crops, row.images, config.view_px, pad_id)


def write_target(
    out: DrawingBatch,
    number: int,
    sample: Sample,
    pixels: UInt8[np.ndarray, "h w 3"],
    start: int,
    index: int,
    draw: Draw,
    seed: int,
) -> None:
    """Writes what a sample is to become beside its row's text, which `write` writes.

    number: of the row. start: the sample's first position. index: of the row's images to draw, from 0; it is also the
    segments before it, so a row has room. draw, seed: what the random draws about the image follow from.
    """
    assert sample.query is not None
    out.query[number, start : start + len(sample.query)] = sample.query
    out.target_pixels[number, index] = pixels
    out.target_segment[number, index] = index + 1
    words = np.random.SeedSequence((seed, *draw, TARGET_SEED)).generate_state(2)
    out.target_seed[number, index] = words


TARGET_SEED = 0xD2A3
"""Apart from what is random in reading the record (`Draw.rng`)."""


def row_of(batch: Batch, number: int) -> Batch:
    """A view of one row, without the dimension B: what is written into it is written into the batch."""
    return Batch(*(array[number] for array in batch))


def write(
    out: Batch,
    sample: Sample,
    layouts: Sequence[Layout],
    used: Size,
    row: RowConfig,
    image_id: int,
) -> None:
    """Writes a sample into a row, behind the samples that are there; its crops lie there already (`decode`).

    out: one row, see `row_of`. used: what the samples before this one take of the row. A preference pair becomes two
    segments, chosen and rejected, and its images belong to the first of them.
    """
    segment = used.segments + 1
    members = [(sample.token_ids, sample.loss_mask)]
    if sample.rejected_ids is not None:
        members.append((sample.rejected_ids, sample.rejected_mask))
    start = used.positions
    for number, (token_ids, loss_mask) in enumerate(members):
        expanded = expand(token_ids, layouts, row, image_id, used.crops, used.images)
        add_text(out, start, expanded.token_ids, expanded.slot, loss_mask[expanded.source], segment + number)
        start += len(expanded.token_ids)
    crop = used.crops
    for index, (image, layout) in enumerate(zip(sample.images, layouts, strict=True), used.images):
        add_image(out, crop, index, None, layout, image.size_px, segment)
        crop += layout.crops


def add_text(
    out: Batch,
    start: int,
    token_ids: Int32[np.ndarray, " n"],
    slot: Int32[np.ndarray, " n"] | int,
    is_target: Bool[np.ndarray, " n"] | bool,
    segment: int,
    is_text: Bool[np.ndarray, " n"] | None = None,
) -> None:
    """Writes a segment's expanded tokens to positions start, start + 1, ... of a row.

    is_text: False for padding between them, which has no segment and is not counted; None: there is none.
    """
    span = slice(start, start + len(token_ids))
    if is_text is None:
        is_text = np.ones(len(token_ids), bool)
    out.token_ids[span] = token_ids
    out.slot[span] = slot
    out.segment_ids[span] = np.where(is_text, segment, 0)
    out.positions[span] = np.maximum(np.cumsum(is_text) - 1, 0)
    # Vision tokens are never targets, nor is a segment's first position: nothing of its segment comes before it.
    out.loss_mask[span] = is_target & (out.slot[span] < 0)
    out.loss_mask[start] = False


def add_image(
    out: Batch, crop: int, image: int, pixels: CropPixels | None, layout: Layout, size_px: tuple[int, int], segment: int
) -> None:
    """Writes an image of a row and its crops.

    crop, image: numbers of its first crop and of itself in the row. pixels: None where they are in the row already.
    size_px: (width, height) before resizing.
    """
    span = slice(crop, crop + layout.crops)
    if pixels is not None:
        out.pixels[span] = pixels
    out.crop_image[span] = image
    out.crop_segment[span] = segment
    out.image_grid[image] = layout.grid
    out.image_size_px[image] = size_px
    out.image_valid[image] = layout.valid


class Expanded(NamedTuple):
    """A token sequence with every `<image>` repeated over its vision tokens."""

    token_ids: Int32[np.ndarray, " n"]
    slot: Int32[np.ndarray, " n"]
    source: Int[np.ndarray, " n"]  # the token of the unexpanded sequence


def expand(
    token_ids: Int32[np.ndarray, " n"],
    layouts: Sequence[Layout],
    row: RowConfig,
    image_id: int,
    first_crop: int = 0,
    first_image: int = 0,
) -> Expanded:
    """Repeats the k-th `<image>` over the vision tokens of the k-th layout.

    Example, Q = 2 and one image of one crop, first_crop 3: [9 a] -> ids [9 9 a], slot [6 7 -1], source [0 0 1].
    """
    is_image = token_ids == image_id
    repeats = np.ones(len(token_ids), np.int64)
    repeats[is_image] = [row.tokens_of(layout) for layout in layouts]
    source = np.repeat(np.arange(len(token_ids)), repeats)
    slot = np.full(len(source), -1, np.int32)
    runs, crop = [], first_crop
    for image, layout in enumerate(layouts, start=first_image):
        start = row.vision_tokens * (crop if row.vision_tokens_per == "crop" else image)
        runs.append(np.arange(start, start + row.tokens_of(layout), dtype=np.int32))
        crop += layout.crops
    if runs:
        slot[is_image[source]] = np.concatenate(runs)
    return Expanded(token_ids[source], slot, source)


def decode(
    sample: Sample,
    layouts: Sequence[Layout],
    config: AnyRes,
    out: UInt8[np.ndarray, "n S S 3"],
    skipped: list[Skip] | None,
) -> bool:
    """Writes the crops of a sample's images to `out`, its part of a row's pixels.

    Before anything else of the sample is written. False where an image cannot be decoded and `skipped` takes the
    sample; all of `out` is zeros then.
    """
    first = 0
    for image, layout in zip(sample.images, layouts, strict=True):
        try:
            anyres.crops(_loaded(image, config), config, out[first : first + layout.crops])
        except Exception as error:
            out[...] = 0
            if skipped is None or not is_of_a_record(error):
                error.add_note(f"Raised for an image of the record {sample.id}.")
                raise
            skipped.append(skip_of(error, sample.source, sample.id, BAD_IMAGE))
            return False
        first += layout.crops
    return True


def _loaded(image: LazyImage, config: AnyRes) -> PIL.Image.Image:
    if config.scaled_decoding and image.load_scaled is not None:
        return image.load_scaled(config.view_px)
    pixels = image.load()
    if pixels.size != image.size_px:
        raise ValueError(f"image: it has {pixels.size} px and had {image.size_px} before; copy it again.")
    return pixels
