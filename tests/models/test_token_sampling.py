import jax
import numpy as np
import pytest

from xgenmm_jax.batch import Batch
from xgenmm_jax.models.token_sampling import group_crops, group_images, group_strips

GRID = 3
PATCHES = GRID * GRID
CROPS = 12


def batch_of(rows):
    """A Batch of images only. rows: per row, images as (columns, lines, (top, bottom, left, right))."""
    count, images = len(rows), 3
    batch = Batch(
        token_ids=np.zeros((count, 1), np.int32),
        segment_ids=np.zeros((count, 1), np.int32),
        positions=np.zeros((count, 1), np.int32),
        loss_mask=np.zeros((count, 1), bool),
        slot=np.full((count, 1), -1, np.int32),
        pixels=np.zeros((count, CROPS, 1, 1, 3), np.uint8),
        crop_image=np.full((count, CROPS), -1, np.int32),
        crop_segment=np.zeros((count, CROPS), np.int32),
        image_grid=np.zeros((count, images, 2), np.int32),
        image_size_px=np.zeros((count, images, 2), np.int32),
        image_valid=np.zeros((count, images, 4), np.int32),
    )
    for row, images_of_row in enumerate(rows):
        crop = 0
        for number, (columns, lines, valid) in enumerate(images_of_row):
            batch.image_grid[row, number] = columns, lines
            batch.image_valid[row, number] = valid
            batch.crop_image[row, crop : crop + 1 + columns * lines] = number
            crop += 1 + columns * lines
    return batch


ROWS = [
    [(2, 2, (1, 5, 0, 6)), (0, 0, (0, 0, 0, 0)), (3, 1, (0, 3, 2, 7))],
    [(1, 3, (0, 9, 1, 2)), (2, 3, (4, 4, 0, 6))],
    [(3, 3, (2, 7, 0, 9))],
    [],
]
"""Odd grids of 3 x 3 patches, a global view alone between images, an image without any valid cell, an empty row."""


def features_of(rows):
    return np.random.default_rng(0).normal(size=(len(rows), CROPS, PATCHES, 2)).astype(np.float32)


def canvas_of(features, first, columns, lines):
    """Crops merged as they lie in the image: [GRID * lines, GRID * columns, E]."""
    crops = features[first + 1 : first + 1 + columns * lines].reshape(lines, columns, GRID, GRID, 2)
    return crops.transpose(0, 2, 1, 3, 4).reshape(GRID * lines, GRID * columns, 2)


def valid_of(columns, lines, valid):
    top, bottom, left, right = valid
    mask = np.zeros((GRID * lines, GRID * columns), bool)
    mask[top:bottom, left:right] = True
    return mask


def images_with_first(rows):
    for row, images in enumerate(rows):
        first = 0
        for number, (columns, lines, valid) in enumerate(images):
            yield row, number, first, columns, lines, valid
            first += 1 + columns * lines


def test_strips_are_runs_of_the_canvas():
    """The official reshape, canvas by canvas in numpy."""
    features, batch = features_of(ROWS), batch_of(ROWS)
    grouped, mask = jax.tree.map(np.asarray, jax.jit(group_strips, static_argnums=2)(features, batch, GRID))
    for row, _, first, columns, lines, valid in images_with_first(ROWS):
        np.testing.assert_array_equal(grouped[row, first], features[row, first])
        assert mask[row, first].all()
        last = first + 1 + columns * lines
        strips = canvas_of(features[row], first, columns, lines).reshape(columns * lines, PATCHES, 2)
        np.testing.assert_array_equal(grouped[row, first + 1 : last], strips)
        np.testing.assert_array_equal(
            mask[row, first + 1 : last], valid_of(columns, lines, valid).reshape(columns * lines, PATCHES)
        )


def test_crops_keep_their_features_and_get_their_part_of_the_mask():
    features, batch = features_of(ROWS), batch_of(ROWS)
    grouped, mask = jax.tree.map(np.asarray, jax.jit(group_crops, static_argnums=2)(features, batch, GRID))
    np.testing.assert_array_equal(grouped, features)
    for row, _, first, columns, lines, valid in images_with_first(ROWS):
        assert mask[row, first].all()
        canvas = valid_of(columns, lines, valid)
        for number in range(columns * lines):
            line, column = divmod(number, columns)
            part = canvas[GRID * line : GRID * line + GRID, GRID * column : GRID * column + GRID]
            np.testing.assert_array_equal(mask[row, first + 1 + number], part.reshape(-1))


@pytest.mark.parametrize("max_crops", [10, 12])
def test_images_hold_their_global_view_and_valid_cells(max_crops):
    """The valid features of each image are the official ones, as a set."""
    features, batch = features_of(ROWS), batch_of(ROWS)
    apply = jax.jit(group_images, static_argnums=(2, 3))
    grouped, mask = jax.tree.map(np.asarray, apply(features, batch, GRID, max_crops))
    is_checked = np.zeros(mask.shape[:2], bool)
    for row, number, first, columns, lines, valid in images_with_first(ROWS):
        canvas = canvas_of(features[row], first, columns, lines)[valid_of(columns, lines, valid)]
        expected = np.concatenate([features[row, first], canvas])
        group = grouped[row, number][mask[row, number]]
        np.testing.assert_array_equal(np.sort(group, axis=0), np.sort(expected, axis=0))
        is_checked[row, number] = True
    assert not mask[~is_checked].any()
