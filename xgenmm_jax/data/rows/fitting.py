"""What samples take of a row, from their sizes alone: the same cuts as `packing.fit` makes of their tokens."""

import functools
from typing import NamedTuple

from jaxtyping import Bool, Int64
import numpy as np

from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.index import shapes as shapes_
from xgenmm_jax.data.index.shapes import CONVERSATION, CUT, IMAGE, PAIR, TOKENS, Shapes
from xgenmm_jax.data.rows.packing import RowConfig, Size, budget


class Fitted(NamedTuple):
    """What n samples take of a row.

    sizes: of each budget, behind the cut; zeros where a sample is not used. used: it is in a row. tokens, images: what
    the samples have before the cut; kept_tokens: what is left of it.
    """

    sizes: Int64[np.ndarray, "n 4"]
    used: Bool[np.ndarray, " n"]
    tokens: Int64[np.ndarray, " n"]
    images: Int64[np.ndarray, " n"]
    kept_tokens: Int64[np.ndarray, " n"]
    whole: Int64[np.ndarray, "n 4"]
    """Of each budget, what the uncut sample would take."""


def fit_shapes(shapes: Shapes, config: AnyRes, row: RowConfig) -> Fitted:
    """The sizes of samples, cut where a row cannot hold them; records that are BAD or fit no row are not used."""
    count, room = shapes.count, np.array(budget(row), np.int64)
    image_costs = _image_costs(shapes, config, row)
    # Whole samples, all at once: tokens, and what images add to them.
    tokens = shapes_.tokens_of(shapes)
    starts = np.concatenate([np.zeros(1, np.int64), shapes.image_ends[:-1]]) if count else shapes.image_ends
    sums = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(image_costs, axis=0)])
    vision, crops = (sums[shapes.image_ends] - sums[starts]).T if count else np.zeros((2, 0), np.int64)
    images = shapes.image_ends - starts
    is_pair = shapes.kinds == PAIR
    whole = np.stack([tokens + np.where(is_pair, 2, 1) * vision, crops, images, 1 + is_pair], axis=1)
    used = (whole <= room).all(axis=1) & ~shapes_.is_bad(shapes)
    sizes, remaining = np.where(used[:, None], whole, 0), np.where(used, tokens, 0)
    # The few that are too long, one after the other.
    for number in np.flatnonzero(~used & ~shapes_.is_bad(shapes) & ~is_pair).tolist():
        first_piece = int(shapes.piece_ends[number - 1]) if number else 0
        cut = _cut(
            shapes.pieces[first_piece : shapes.piece_ends[number]],
            image_costs[starts[number] : shapes.image_ends[number]],
            int(shapes.kinds[number]),
            budget(row),
        )
        if cut is not None:
            remaining[number], sizes[number], used[number] = cut[0], cut[1], True
    return Fitted(sizes, used, tokens, images, remaining, whole)


def _image_costs(shapes: Shapes, config: AnyRes, row: RowConfig) -> Int64[np.ndarray, "i 2"]:
    """Of each image the positions that it adds to its `<image>` id, and its crops."""
    keys, inverse = np.unique(
        shapes.image_px.astype(np.uint32) @ np.array([1 << 16, 1], np.uint32), return_inverse=True
    )
    costs = [_cost((key >> 16, key & 0xFFFF), config, row) for key in keys.tolist()]
    return np.array(costs, np.int64).reshape(-1, 2)[inverse]


@functools.lru_cache(maxsize=1 << 17)
def _cost(size_px: tuple[int, int], config: AnyRes, row: RowConfig) -> tuple[int, int]:
    layout = anyres.layout(size_px, config)
    return row.tokens_of(layout) - 1, layout.crops


def _cut(pieces: np.ndarray, image_costs: Int64[np.ndarray, "i 2"], kind: int, room: Size) -> tuple[int, Size] | None:
    """Tokens and size of the longest part of a sample that may stand alone in a row; None where there is none."""
    tokens = positions = crops = images = 0
    at_cut: tuple[int, Size] | None = None
    anywhere: tuple[int, Size] | None = None
    has_target = False
    for piece in pieces.tolist():
        length, added = piece & TOKENS, 0
        if piece & IMAGE:
            vision, more_crops = image_costs[images].tolist()
            added = vision
            if positions + 1 + vision > room.positions or crops + more_crops > room.crops or images >= room.images:
                break
            crops, images = crops + more_crops, images + 1
        text = length - (1 if piece & IMAGE else 0)
        fitting = min(length, room.positions - positions - added)
        # The first token of a sample is no target, images never are.
        has_target |= min(text, fitting - (length - text)) > (0 if tokens or piece & IMAGE else 1)
        tokens, positions = tokens + fitting, positions + fitting + added
        if has_target:
            anywhere = tokens, Size(positions, crops, images, 1)
        if fitting < length:
            break
        if piece & CUT:
            at_cut = tokens, Size(positions, crops, images, 1)
    if at_cut is not None or kind == CONVERSATION:
        return at_cut
    return anywhere
