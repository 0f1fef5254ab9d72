"""Rows of ids and lists of images as a batch of static shapes, and which part of the results is not padding."""

from collections.abc import Iterable, Sequence
import itertools
from typing import Any, NamedTuple

from jaxtyping import Bool, Int32
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.anyres import AnyRes, normalized
from xgenmm_jax.data.records import Crops, LazyImage
from xgenmm_jax.data.rows import build
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation import arguments
from xgenmm_jax.generation.arguments import shown
from xgenmm_jax.generation.buckets import PROMPT_BUCKETS, bucket
from xgenmm_jax.generation.vision_tokens import View, check_view
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.token_sampling import TokenSampling

Ids = Sequence[int | np.integer] | np.ndarray

IGNORED = -100
"""A label that is no target."""
CROP_BUCKETS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 52, 64, 80, 104, 128, 192, 256)
"""Crops of a row. 5 and 13 are those of one image with the released grids and with 12 crops."""


class Extent(NamedTuple):
    """Which part of a batch's shapes is used."""

    rows: int
    length: int
    """Positions of the longest row."""
    crops: Bool[np.ndarray, "B C"]
    """Those that exist."""
    groups: Bool[np.ndarray, "B G"]
    """Groups of vision tokens that exist: crops or strips, or images with fixed sampling."""


def listed_rows(rows: Any, caller: str, form: str) -> list[Any]:
    """Rows or prompts as a list. Raises ValueError for what is no list of them, as a row by itself."""
    is_iterable = isinstance(rows, Iterable) and getattr(rows, "ndim", 1) > 0
    if not is_iterable or isinstance(rows, str | bytes | dict | set):
        raise ValueError(f"{caller}: got {shown(rows)}; give {form}.")
    rows = list(rows)
    if rows and (isinstance(rows[0], int | float | np.number) or getattr(rows[0], "ndim", 1) == 0):
        raise ValueError(f"{caller}: got one row of numbers, beginning with {rows[0]}; give {form}, here [[...]].")
    return rows


def make_rows(
    token_ids: Sequence[Ids | object] | np.ndarray,
    images: Sequence[Sequence[LazyImage | Crops]],
    labels: Sequence[Ids] | np.ndarray | object | None,
    config: VLMConfig,
    anyres: AnyRes,
    tokenizer: Tokenizer,
    row_multiple: int = 1,
) -> tuple[Batch, Extent]:
    """One sample a row, padded right to shapes from a bucket list.

    No position attends to pad ids inside a row, nor are they counted. Images beyond the `<image>` ids of their row
    are encoded and not used, as in the official code. labels: the token itself where it is a target, else -100; None:
    all but pads and the decoupled ids.

    Raises ValueError where a row has fewer images than `<image>` ids, a label is not the row's token, or fixed
    sampling would not read all crops of an image.
    """
    # Arguments as rows of ids, labels and views, as many of each.
    ids_of = config.decoder.logits
    token_rows = [arguments.token_ids(row, ids_of, f"forward: row {number}") for number, row in enumerate(token_ids)]
    labels = None if labels is None else listed_rows(labels, "forward", "a row of labels for every row of ids")
    if len(images) != len(token_rows) or (labels is not None and len(labels) != len(token_rows)):
        raise ValueError(
            f"forward: got {len(token_rows)} rows of ids, {len(images)} lists of images and "
            f"{len(token_rows) if labels is None else len(labels)} rows of labels; give one of each for every row."
        )
    views = [[View(image, anyres, ()) for image in listed_images] for listed_images in images]
    for view in itertools.chain.from_iterable(views):
        check_view(config, view)
    # What the loss counts: the labels' targets, by default every token that is none of the decoupled ids.
    masks = [
        (ids < tokenizer.image_id) & (ids != tokenizer.pad_id)
        if labels is None
        else _targets(number, ids, labels[number])
        for number, ids in enumerate(token_rows)
    ]
    # The row has room for the crops of the call's largest row, rounded up to a bucket.
    per_image = config.token_sampling is TokenSampling.FIXED_SAMPLING
    crops = max((sum(view.layout.crops for view in row) for row in views), default=0)
    crops = bucket(crops, CROP_BUCKETS, "crops of a row") if crops else 0
    row = RowConfig(
        length=1,
        crops=max(1, crops),
        images=max(1, *map(len, views)),
        vision_tokens=config.tokens_per_group,
        vision_tokens_per="image" if per_image else "crop",
    )
    # Each `<image>` id becomes as many positions as its image has vision tokens.
    expanded = []
    for number, (ids, row_views) in enumerate(zip(token_rows, views, strict=True)):
        used = int(np.sum(ids == tokenizer.image_id))
        if used > len(row_views):
            raise ValueError(
                f"forward: row {number} has {used} <image> ids and {len(row_views)} images; give an image for each."
            )
        expanded.append(build.expand(ids, [view.layout for view in row_views[:used]], row, tokenizer.image_id))
    # Shapes from buckets, so that calls of like sizes share a compilation; rows are a multiple of the mesh's.
    length = max(len(one.token_ids) for one in expanded)
    count = -(-max(len(token_rows), 1) // row_multiple)
    rows = row_multiple * (1 << (count - 1).bit_length())
    is_float = any(isinstance(view.image, Crops) for row_views in views for view in row_views)
    batch = Batch.empty(
        rows,
        bucket(length, PROMPT_BUCKETS, "positions of a row"),
        crops,
        row.images,
        anyres.view_px,
        tokenizer.pad_id,
        np.float32 if is_float else np.uint8,
    )
    # Text, slots and images of each sample into its row.
    for number, (one, mask, row_views) in enumerate(zip(expanded, masks, views, strict=True)):
        out = build.row_of(batch, number)
        is_text = one.token_ids != tokenizer.pad_id
        build.add_text(out, 0, one.token_ids, one.slot, mask[one.source], 1, is_text)
        _write_images(out, row_views, config)
    # Which crops and groups of vision tokens are real, for the caller to cut the results.
    groups = batch.image_size_px[..., 0] > 0 if per_image else batch.crop_image >= 0
    return batch, Extent(len(token_rows), length, batch.crop_image >= 0, groups)


def _targets(number: int, ids: Int32[np.ndarray, " n"], labels: Ids | object) -> Bool[np.ndarray, " n"]:
    remedy = f"give the token itself where it is a target, {IGNORED} elsewhere."
    try:
        targets = np.asarray(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"forward: labels of row {number} are {shown(labels)}; {remedy}") from error
    if targets.shape != ids.shape:
        got = f"{len(targets)} numbers" if targets.ndim == 1 else shown(labels)
        raise ValueError(f"forward: labels of row {number} are {got} for {len(ids)} ids; {remedy}")
    is_target = targets != IGNORED
    if np.any(targets[is_target] != ids[is_target]):
        raise ValueError(f"forward: labels of row {number} are not its tokens; {remedy}")
    return is_target


def _write_images(out: Batch, views: Sequence[View], config: VLMConfig) -> None:
    crop = 0
    for image, view in enumerate(views):
        layout, pixels = view.layout, view.pixels()
        if out.pixels.dtype == np.float32 and pixels.dtype == np.uint8:
            pixels = normalized(pixels, config.vision.pixel_mean, config.vision.pixel_std)
        view_shape = (config.vision.image_size_px,) * 2 + (3,)
        if pixels.shape[1:] != view_shape:
            raise ValueError(f"forward: got crops of {pixels.shape[1:]}, the tower takes {view_shape}; resize them.")
        build.add_image(out, crop, image, pixels, layout, view.image.size_px, segment=1)
        crop += layout.crops
