"""Several samples in a row: sizes, best fit under several budgets, and rows as arrays.

A row has room for `length` positions, `crops` crops, `images` images and `segments` samples. No sample is split and
a preference pair stays together: two segments whose pictures are shared and counted once.
"""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Bool, Int, Int32, Int64, UInt8
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes, Layout
from xgenmm_jax.data.records import Picture, Sample
from xgenmm_jax.data.rows.quarantine import BAD_PICTURE, Skip, is_of_a_record, skip_of
from xgenmm_jax.data.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class RowConfig:
    """The static shapes of a row.

    length: positions T, vision tokens included. crops: C. images: I. segments: samples at most (a pair is two).
    vision_tokens: Q, of each crop (resampler per crop or strip, MLP connector) or of each image (fixed sampling).
    too_long: what to do with a sample that no row can hold and that has no place to cut: "error", or "drop" it.
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


def layouts_of(pictures: Sequence[Picture], config: AnyRes) -> tuple[Layout, ...]:
    return tuple(anyres.layout(picture.size_px, config) for picture in pictures)


def measure(sample: Sample, layouts: Sequence[Layout], row: RowConfig) -> Size:
    """The size of a sample. Pictures are not decoded."""
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
    and plain text, are cut anywhere but inside a picture. Pairs are never cut.

    Raises:
        ValueError: nothing supervised would be left, and `too_long="error"`.
    """
    layouts = layouts_of(sample.pictures, config)
    room = budget(row)
    size = measure(sample, layouts, row)
    if all(need <= have for need, have in zip(size, room, strict=True)):
        return sample
    cut = 0
    if sample.rejected_ids is None:
        used = _used_after(sample.token_ids, layouts, row, tokenizer)
        fits = np.all(used <= np.array(room[:3]), axis=1)
        longest = int(np.argmin(fits)) if not fits.all() else len(fits)  # `used` never falls
        ends = (sample.token_ids == tokenizer.end_id) | (sample.token_ids == tokenizer.end_of_chunk_id)
        places = np.flatnonzero(ends & sample.loss_mask) + 1
        places = places[places <= longest]
        if len(places):
            cut = int(places[-1])
        elif tokenizer.end_id not in sample.token_ids:
            cut = longest
    if cut and sample.loss_mask[:cut].any():
        pictures = int(np.sum(sample.token_ids[:cut] == tokenizer.image_id))
        return dataclasses.replace(
            sample,
            token_ids=sample.token_ids[:cut],
            loss_mask=sample.loss_mask[:cut],
            pictures=sample.pictures[:pictures],
        )
    if row.too_long == "drop":
        return None
    raise ValueError(_too_long(sample, layouts, row))


def _used_after(
    token_ids: Int32[np.ndarray, " n"], layouts: Sequence[Layout], row: RowConfig, tokenizer: Tokenizer
) -> Int64[np.ndarray, "n 3"]:
    """Positions, crops and images taken by each prefix of a sample."""
    costs = np.tile(np.array([1, 0, 0], np.int64), (len(token_ids), 1))
    images = [(row.tokens_of(layout), layout.crops, 1) for layout in layouts]
    costs[token_ids == tokenizer.image_id] = np.array(images, np.int64).reshape(-1, 3)
    return np.cumsum(costs, axis=0)


def excess(sample: Sample, layouts: Sequence[Layout], row: RowConfig) -> list[str]:
    """What of a sample a row has no room for: "24 positions exceed the row's 10"."""
    return [
        f"{need} {name} exceed the row's {have}"
        for name, need, have in zip(Size._fields, measure(sample, layouts, row), budget(row), strict=True)
        if need > have
    ]


def _too_long(sample: Sample, layouts: Sequence[Layout], row: RowConfig) -> str:
    vision = sum(map(row.tokens_of, layouts))
    over = excess(sample, layouts, row)
    field = over[0].split()[1].replace("positions", "length")
    return (
        f"row: sample {sample.id} does not fit: {' and '.join(over)}. It has {len(layouts)} pictures of "
        f"{[layout.crops for layout in layouts]} crops, {vision} vision tokens. Raise row.{field}, take fewer crops "
        "with smaller anyres.grids, or set row.too_long=drop."
    )


def best_fit(sizes: Sequence[Size], room: Size) -> list[list[int]]:
    """Rows as lists of sample numbers: each sample, largest first, goes where it leaves the least room.

    Pure and deterministic; ties go to the earlier sample and the earlier row. Every size must fit `room`.
    """
    have = np.array(room, np.int64)
    need = np.array(sizes, np.int64).reshape(-1, len(room))
    # The two budgets that bind, positions and crops, as parts of a row.
    parts = need[:, :2] / have[:2]
    largest_first = np.argsort(-parts.max(axis=1), kind="stable")
    left = np.empty((len(sizes), len(room)), np.int64)
    rows: list[list[int]] = []
    for sample in largest_first.tolist():
        open_ = left[: len(rows)]
        fitting = np.flatnonzero((open_ >= need[sample]).all(axis=1))
        if len(fitting):
            slack = ((open_[fitting, :2] - need[sample, :2]) / have[:2]).sum(axis=1)
            chosen = int(fitting[np.argmin(slack)])
            rows[chosen].append(sample)
        else:
            chosen = len(rows)
            rows.append([sample])
            left[chosen] = have
        left[chosen] -= need[sample]
        assert (left[chosen] >= 0).all(), f"sample {sample} of size {sizes[sample]} exceeds {room}"
    return rows


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


def empty_rows(rows: int, row: RowConfig, config: AnyRes, pad_id: int) -> Batch:
    """A batch of nothing but padding, to be filled in place."""
    B, T, C, size = rows, row.length, row.crops, config.view_px
    return Batch(
        token_ids=np.full((B, T), pad_id, np.int32),
        segment_ids=np.zeros((B, T), np.int32),
        positions=np.zeros((B, T), np.int32),
        loss_mask=np.zeros((B, T), bool),
        slot=np.full((B, T), -1, np.int32),
        pixels=np.zeros((B, C, size, size, 3), np.uint8),
        crop_image=np.full((B, C), -1, np.int32),
        crop_segment=np.zeros((B, C), np.int32),
        image_grid=np.zeros((B, row.images, 2), np.int32),
        image_size_px=np.zeros((B, row.images, 2), np.int32),
        image_valid=np.zeros((B, row.images, 4), np.int32),
    )


def build_rows(
    rows: Sequence[Sequence[Sample]],
    row: RowConfig,
    config: AnyRes,
    tokenizer: Tokenizer,
    skipped: list[Skip] | None = None,
) -> Batch:
    """Packed rows as arrays; decodes the pictures. Each list of samples must fit a row.

    skipped: is given a Skip for each sample with a picture that cannot be decoded. Its place stays padding, and what
    stands behind it stays where it is: segments 1 1 2 2 3 0 become 1 1 0 0 3 0. None: such a picture is an error.
    """
    batch = empty_rows(len(rows), row, config, tokenizer.pad_id)
    for number, samples in enumerate(rows):
        _fill_row(Batch(*(array[number] for array in batch)), samples, row, config, tokenizer, skipped)
    return batch


def _fill_row(
    out: Batch,
    samples: Sequence[Sample],
    row: RowConfig,
    config: AnyRes,
    tokenizer: Tokenizer,
    skipped: list[Skip] | None,
) -> None:
    position = crop = image = segment = 0
    for sample in samples:
        segment += 1
        layouts = layouts_of(sample.pictures, config)
        views = _views(sample, layouts, config, skipped)
        members = [(sample.token_ids, sample.loss_mask)]
        if sample.rejected_ids is not None:
            members.append((sample.rejected_ids, sample.rejected_mask))
        for member, (token_ids, loss_mask) in enumerate(members):
            expanded = expand(token_ids, layouts, row, tokenizer.image_id, crop, image)
            place = slice(position, position + len(expanded.token_ids))
            if views is not None:
                _put_text(out, place, expanded, loss_mask, segment + member)
            position = place.stop
        for number, (picture, layout) in enumerate(zip(sample.pictures, layouts, strict=True)):
            if views is not None:
                _put_picture(out, views[number], picture, layout, crop, image, segment)
            crop += layout.crops
            image += 1
        segment += len(members) - 1


def _views(
    sample: Sample, layouts: Sequence[Layout], config: AnyRes, skipped: list[Skip] | None
) -> list[UInt8[np.ndarray, "n S S 3"]] | None:
    """The crops of each picture; None where one cannot be decoded and `skipped` takes it.

    All of a sample before anything of it is laid into its row.
    """
    views = []
    for picture, layout in zip(sample.pictures, layouts, strict=True):
        try:
            found = picture.load()
            if found.size != picture.size_px:
                raise ValueError(f"picture: it has {found.size} px and had {picture.size_px} before; copy it again.")
            views.append(anyres.crops(found, config))
            assert len(views[-1]) == layout.crops
        except Exception as error:
            if skipped is None or not is_of_a_record(error):
                error.add_note(f"Raised for a picture of the record {sample.id}.")
                raise
            skipped.append(skip_of(error, sample.source, sample.id, BAD_PICTURE))
            return None
    return views


def _put_text(out: Batch, place: slice, expanded: Expanded, loss_mask: Bool[np.ndarray, " n"], segment: int) -> None:
    out.token_ids[place] = expanded.token_ids
    out.slot[place] = expanded.slot
    out.segment_ids[place] = segment
    out.positions[place] = np.arange(len(expanded.token_ids))
    # Vision tokens are never targets, nor is a segment's first position: nothing of its segment comes before it.
    out.loss_mask[place] = loss_mask[expanded.source] & (expanded.slot < 0)
    out.loss_mask[place.start] = False


def _put_picture(
    out: Batch,
    views: UInt8[np.ndarray, "n S S 3"],
    picture: Picture,
    layout: Layout,
    crop: int,
    image: int,
    segment: int,
) -> None:
    out.pixels[crop : crop + layout.crops] = views
    out.crop_image[crop : crop + layout.crops] = image
    out.crop_segment[crop : crop + layout.crops] = segment
    out.image_grid[image] = layout.grid
    out.image_size_px[image] = picture.size_px
    out.image_valid[image] = layout.valid
