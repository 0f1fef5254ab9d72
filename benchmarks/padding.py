"""Packed rows taken apart: the same samples as the released code lays them out, one a row, padded to the longest."""

from typing import NamedTuple

from jaxtyping import Bool, Int32, UInt8
import numpy as np

from xgenmm_jax.batch import Batch

IGNORED = -100
"""The label of a position without loss, torch's default."""


class Padded(NamedTuple):
    """Samples of a batch, n of them, right-padded; their m crops one after the other, none of them padding.

    Two samples, `<image>` a b and c, Q = 2:  token_ids [[9 9 a b] [c 0 0 0]]  labels [[-100 -100 a b] [-100 ...]]
    vision_index [[0 1 -1 -1] [-1 -1 -1 -1]]: crop * Q + q.
    """

    token_ids: Int32[np.ndarray, "n T"]
    attention_mask: Int32[np.ndarray, "n T"]
    labels: Int32[np.ndarray, "n T"]
    vision_index: Int32[np.ndarray, "n T"]
    pixels: UInt8[np.ndarray, "m h w 3"]
    image_mask: Bool[np.ndarray, "m P"]
    """Patches that are image and not padding."""


def padded(batch: Batch, queries: int, grid: int) -> Padded:
    """queries: Q, vision tokens a crop. grid: patches along a side of a crop."""
    samples, crops, masks = [], [], []
    for row in range(len(batch.token_ids)):
        valid = image_patches(batch, row, grid)
        for segment in range(1, int(batch.segment_ids[row].max()) + 1):
            is_segment = batch.segment_ids[row] == segment
            # This segment's crops come after all crops so far.
            segment_crops = np.flatnonzero(batch.crop_segment[row] == segment)
            slot = batch.slot[row][is_segment]
            shift = (len(crops) - (segment_crops[0] if len(segment_crops) else 0)) * queries
            index = np.where(slot >= 0, slot + shift, -1)
            ids = batch.token_ids[row][is_segment]
            samples.append((ids, np.where(batch.loss_mask[row][is_segment], ids, IGNORED), index))
            crops.extend(batch.pixels[row][segment_crops])
            masks.extend(valid[segment_crops])
    length = max(len(ids) for ids, _, _ in samples)
    return Padded(
        token_ids=_right_padded([ids for ids, _, _ in samples], length, 0),
        attention_mask=_right_padded([np.ones_like(ids) for ids, _, _ in samples], length, 0),
        labels=_right_padded([labels for _, labels, _ in samples], length, IGNORED),
        vision_index=_right_padded([index for _, _, index in samples], length, -1),
        pixels=np.stack(crops),
        image_mask=np.stack(masks),
    )


def _right_padded(rows: list[np.ndarray], length: int, filler: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, length - len(row)), constant_values=filler) for row in rows]).astype(np.int32)


def image_patches(batch: Batch, row: int, grid: int) -> Bool[np.ndarray, "C P"]:
    """Patches of a row's crops that are image: all of a global view, of a crop its cells inside image_valid."""
    images = batch.crop_image[row]
    result = np.ones((len(images), grid, grid), bool)
    for image in range(images.max(initial=-1) + 1):
        top, bottom, left, right = batch.image_valid[row, image]
        columns = max(int(batch.image_grid[row, image, 0]), 1)
        for number, crop in enumerate(np.flatnonzero(images == image)[1:]):
            cell_row = number // columns * grid + np.arange(grid)[:, None]
            cell_column = number % columns * grid + np.arange(grid)[None]
            inside = (cell_row >= top) & (cell_row < bottom) & (cell_column >= left) & (cell_column < right)
            result[crop] = inside
    return result.reshape(len(images), grid * grid)
