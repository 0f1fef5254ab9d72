"""Which patch features form one group for the resampler, and which of them are image and not padding.

Source: docs/reference/xgenmm.md#strips and docs/reference/xgenmm.md#sampling-modes. The released weights were trained
with strips, the paper describes crops.
"""

from enum import Enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from xgenmm_jax.batch import Batch


class TokenSampling(Enum):
    """How the vision tokens of an image are sampled from its features.

    CROPS: each crop is resampled by itself (the paper).
    STRIPS: the crops' canvas is cut into runs of P cells in raster order, each resampled by itself (released weights).
    FIXED_SAMPLING: all features of an image are resampled at once, to Q tokens.
    FIXED_RESOLUTION: one view an image; the data gives no other crops.
    """

    CROPS = "crops"
    STRIPS = "strips"
    FIXED_SAMPLING = "fixed_sampling"
    FIXED_RESOLUTION = "fixed_resolution"


class CropPosition(NamedTuple):
    """Position of each crop of a row in its image."""

    image: Int32[Array, "B C"]
    """0 for padding crops."""
    first: Int32[Array, "B C"]
    """The crop that is this image's global view."""
    number: Int32[Array, "B C"]
    """0 for the global view and for padding crops, then 1, 2, ... row by row."""
    columns: Int32[Array, "B C"]
    """Of the image's grid, at least 1."""


def crop_positions(batch: Batch) -> CropPosition:
    """Positions from crop_image and image_grid. A row of images with 3 and 1 crops: first 0 0 0 3, number 0 1 2 0."""
    crops = batch.crop_image.shape[1]
    index = jnp.broadcast_to(jnp.arange(crops, dtype=jnp.int32)[None], batch.crop_image.shape)
    previous = jnp.pad(batch.crop_image[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    is_first = (batch.crop_image != previous) | (batch.crop_image < 0)
    first = jax.lax.cummax(jnp.where(is_first, index, 0), axis=1)
    image = jnp.maximum(batch.crop_image, 0)
    columns = jnp.take_along_axis(batch.image_grid[..., 0], image, axis=1)
    return CropPosition(image, first, index - first, jnp.maximum(columns, 1))


def cells_of_crops(position: CropPosition, grid: int) -> tuple[Int32[Array, "B C P"], Int32[Array, "B C P"]]:
    """Canvas row and column of each patch of each crop; ignore those of global views."""
    crop = jnp.maximum(position.number - 1, 0)
    patch = jnp.arange(grid * grid, dtype=jnp.int32)[None, None]
    row = (crop // position.columns)[..., None] * grid + patch // grid
    column = (crop % position.columns)[..., None] * grid + patch % grid
    return row, column


def cells_of_strips(position: CropPosition, grid: int) -> tuple[Int32[Array, "B C P"], Int32[Array, "B C P"]]:
    """Canvas row and column of each cell of each strip: strip s holds cells s * P .. s * P + P of the raster.

    Two columns of 2 x 2 patches: strip 0 is canvas row 0 (4 cells wide), strip 1 is row 1.
    """
    strip = jnp.maximum(position.number - 1, 0)
    cell = strip[..., None] * grid**2 + jnp.arange(grid * grid, dtype=jnp.int32)[None, None]
    canvas_width = (position.columns * grid)[..., None]
    return cell // canvas_width, cell % canvas_width


def is_image(
    batch: Batch, position: CropPosition, row: Int32[Array, "B C P"], column: Int32[Array, "B C P"]
) -> Bool[Array, "B C P"]:
    """True for canvas cells inside image_valid, and for every cell of a global view."""
    valid = jnp.take_along_axis(batch.image_valid, position.image[..., None], axis=1)[:, :, None]
    inside = (row >= valid[..., 0]) & (row < valid[..., 1]) & (column >= valid[..., 2]) & (column < valid[..., 3])
    return inside | (position.number == 0)[..., None]


def group_crops(
    features: Float[Array, "B C P E"], batch: Batch, grid: int
) -> tuple[Float[Array, "B C P E"], Bool[Array, "B C P"]]:
    """Each crop by itself, and which of its patches are image."""
    return features, image_patches(batch, grid)


def image_patches(batch: Batch, grid: int) -> Bool[Array, "B C P"]:
    """Which patches of each crop are image."""
    position = crop_positions(batch)
    return is_image(batch, position, *cells_of_crops(position, grid))


def group_strips(
    features: Float[Array, "B C P E"], batch: Batch, grid: int
) -> tuple[Float[Array, "B C P E"], Bool[Array, "B C P"]]:
    """Global views as they are; instead of crop 1, 2, ... of an image, run 1, 2, ... of its canvas' raster."""
    rows, crops, patches, width = features.shape
    position = crop_positions(batch)
    row, column = cells_of_strips(position, grid)
    crop = position.first[..., None] + 1 + (row // grid) * position.columns[..., None] + column // grid
    source = crop * patches + (row % grid) * grid + column % grid
    same = (jnp.arange(crops, dtype=jnp.int32)[:, None] * patches + jnp.arange(patches, dtype=jnp.int32)[None])[None]
    source = jnp.where((position.number == 0)[..., None], same, source)
    flat = features.reshape(rows, crops * patches, width)
    grouped = jnp.take_along_axis(flat, source.reshape(rows, crops * patches, 1), axis=1)
    return grouped.reshape(features.shape), is_image(batch, position, row, column)


def group_images(
    features: Float[Array, "B C P E"], batch: Batch, grid: int, max_crops: int
) -> tuple[Float[Array, "B I S E"], Bool[Array, "B I S"]]:
    """All features of each image, S = max_crops * P of them, and which are image.

    The order inside a group is the crops', not the canvas': the resampler has no positions, so only the mask matters.
    """
    rows, crops, patches, width = features.shape
    images = batch.image_grid.shape[1]
    _, of_crops = group_crops(features, batch, grid)
    image = jnp.arange(images, dtype=jnp.int32)[None, :, None]
    belongs = batch.crop_image[:, None] == image
    first = jnp.argmax(belongs, axis=-1)
    crop = first[..., None] + jnp.arange(max_crops)[None, None]
    taken = jnp.minimum(crop, crops - 1).reshape(rows, images * max_crops)
    is_member = (crop < crops) & jnp.take_along_axis(belongs, jnp.minimum(crop, crops - 1), axis=2)
    grouped = jnp.take_along_axis(features, taken[..., None, None], axis=1)
    mask = jnp.take_along_axis(of_crops, taken[..., None], axis=1).reshape(rows, images, max_crops, patches)
    mask &= is_member[..., None]
    size = max_crops * patches
    return grouped.reshape(rows, images, size, width), mask.reshape(rows, images, size)
