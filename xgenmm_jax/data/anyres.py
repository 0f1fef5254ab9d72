"""An image as a global view and crops, equal to the bit with the official image processing.

Source: docs/reference/images.md#any-resolution.
"""

from dataclasses import dataclass
import math
from typing import Literal, NamedTuple

from jaxtyping import Float32, UInt8
import numpy as np
import PIL.Image

Grid = tuple[int, int]  # (columns, rows) of crops
Channels = tuple[float, float, float]

GRIDS_RELEASED: tuple[Grid, ...] = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""Released v1.5 instruct models and the SFT default, in that order: at most 4 crops and the global view."""
GRIDS_12: tuple[Grid, ...] = tuple((m, n) for m in range(1, 5) for n in range(1, 5) if 2 <= m * n <= 12)
"""Up to 12 crops, "3x4 or 4x3". The paper's own list is not published."""

GRAY = (127, 127, 127)  # int(255 * 0.5), the mean of SigLIP's normalisation


@dataclass(frozen=True)
class AnyRes:
    """How images become views.

    grids: candidates, tried in order; () is fixed resolution: the global view alone.
    view_px: side of a view, a crop or the global one.
    view_cells: feature cells on a side of a view: 27 for 384 px and patches of 14.
    global_view: "squash" ignores the aspect ratio (official for any-res); "pad" centers on a gray square first
        (the official 'pad' mode).
    single_view_up_to_px: images with no side above this keep the global view alone. 0 is official: even a small
        image is enlarged to fill a grid.
    scaled_decoding: rows are built from JPEGs that are decoded at 1/2, 1/4 or 1/8, none of their sides below `view_px`.
        About twice as fast; the pixels are near the official ones, not equal (docs/log/image_decoding.md). Without
        grids alone. Images of prompts are decoded in full all the same.
    """

    grids: tuple[Grid, ...] = GRIDS_RELEASED
    view_px: int = 384
    view_cells: int = 27
    global_view: Literal["squash", "pad"] = "squash"
    single_view_up_to_px: int = 0
    scaled_decoding: bool = False

    def __post_init__(self):
        for columns, rows in self.grids:
            if columns < 1 or rows < 1:
                raise ValueError(f"anyres: grid ({columns}, {rows}); wanted (columns, rows) of 1 or more.")
        if self.view_px < 1 or self.view_cells < 1:
            raise ValueError(f"anyres: view_px {self.view_px}, view_cells {self.view_cells}; wanted 1 or more.")
        if self.scaled_decoding and self.grids:
            raise ValueError(
                f"anyres: scaled_decoding with {len(self.grids)} grids, whose crops need all of an image's pixels; "
                "wanted grids () or scaled_decoding False."
            )

    @property
    def max_crops(self) -> int:
        """The most crops that an image takes, its global view included."""
        return 1 + max((columns * rows for columns, rows in self.grids), default=0)


class Layout(NamedTuple):
    """What an image of a size becomes, known without its pixels."""

    grid: Grid  # (0, 0): the global view alone
    crops: int  # global view included
    valid: tuple[int, int, int, int]  # (top, bottom, left, right): cells of the canvas that show image


def layout(size_px: tuple[int, int], config: AnyRes) -> Layout:
    """The layout of an image of (width, height) pixels. Pure and cheap: nothing is decoded.

    Example, released grids: (640, 480) -> grid (2, 2), 5 crops, valid (7, 47, 0, 54): 40 x 54 of 54 x 54 cells.
    """
    cells = config.view_cells
    if not config.grids or max(size_px) <= config.single_view_up_to_px:
        return Layout((0, 0), 1, (0, cells, 0, cells))
    grid = best_grid(size_px, config.grids, config.view_px)
    return Layout(grid, 1 + grid[0] * grid[1], valid_cells(size_px, (cells * grid[0], cells * grid[1])))


def best_grid(size_px: tuple[int, int], grids: tuple[Grid, ...], view_px: int) -> Grid:
    """The grid that keeps most of the image's pixels, then the one that wastes least; the first wins ties.

    Python's float64 and its int() decide, as in the official code: do not vectorise.
    """
    width, height = size_px
    best, best_pixels, least_waste = grids[0], -1, math.inf
    for grid in grids:
        grid_width, grid_height = grid[0] * view_px, grid[1] * view_px
        scale = min(grid_width / width, grid_height / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        waste = grid_width * grid_height - pixels
        if pixels > best_pixels or (pixels == best_pixels and waste < least_waste):
            best, best_pixels, least_waste = grid, pixels, waste
    return best


def valid_cells(size_px: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the image on a canvas of (columns, rows) feature cells.

    LLaVA's `unpad_image`: the image's extent is truncated and the border floored, so that one row or column
    that is partly padding may stay valid.
    """
    width, height = size_px
    columns, rows = canvas
    if width / height > columns / rows:
        border = (rows - int(height * (columns / width))) // 2
        return border, rows - border, 0, columns
    border = (columns - int(width * (rows / height))) // 2
    return 0, rows, border, columns - border


def crops(
    image: PIL.Image.Image, config: AnyRes, out: UInt8[np.ndarray, "n S S 3"] | None = None
) -> UInt8[np.ndarray, "n S S 3"]:
    """The views of an RGB image: the global one first, then the grid's crops row by row; values 0..255.

    out: where they are written, and what is returned; None: a new array.
    """
    size = config.view_px
    if image.mode != "RGB":
        raise ValueError(f"anyres: got an image of mode {image.mode}; wanted RGB, as `open_image` gives.")
    planned = layout(image.size, config)
    if out is None:
        out = np.empty((planned.crops, size, size, 3), np.uint8)
    assert out.shape == (planned.crops, size, size, 3)
    out[0] = _global_view(image, config)
    columns, rows = planned.grid
    if columns:
        _cut(image, out[1:].reshape(rows, columns, size, size, 3))
    return out


def normalized(
    views: UInt8[np.ndarray, "n S S 3"], mean: Channels = (0.5, 0.5, 0.5), std: Channels = (0.5, 0.5, 0.5)
) -> Float32[np.ndarray, "n S S 3"]:
    """Views as the official tensors, equal to the bit: (x / 255 - mean) / std in float32; by default -1..1.

    Training normalises on the device instead, from bytes, and comes within 1e-6 of this.
    """
    return (views.astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)


def _global_view(image: PIL.Image.Image, config: AnyRes) -> PIL.Image.Image:
    if config.global_view == "pad" and image.width != image.height:
        side = max(image.size)
        square = PIL.Image.new("RGB", (side, side), GRAY)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    if image.size == (config.view_px, config.view_px):
        return image
    return image.resize((config.view_px, config.view_px), PIL.Image.Resampling.BICUBIC)


def _cut(image: PIL.Image.Image, tiles: UInt8[np.ndarray, "rows columns S S 3"]) -> None:
    """Writes the image into the tiles of a grid: as large as fits, at its aspect ratio, centered on black."""
    rows, columns, size = tiles.shape[:3]
    width, height = columns * size, rows * size
    scale_width, scale_height = width / image.width, height / image.height
    if scale_width < scale_height:
        resized_px = (width, min(math.ceil(image.height * scale_width), height))
    else:
        resized_px = (min(math.ceil(image.width * scale_height), width), height)
    resized = np.asarray(image.resize(resized_px, PIL.Image.Resampling.BICUBIC))
    # Straight into the tiles: a padded canvas, cut up afterwards, would copy all pixels twice more.
    left, top = (width - resized_px[0]) // 2, (height - resized_px[1]) // 2
    for row, column in np.ndindex(rows, columns):
        tile = tiles[row, column]
        in_tile_y, in_image_y = _overlap(row * size, size, top, resized_px[1])
        in_tile_x, in_image_x = _overlap(column * size, size, left, resized_px[0])
        shown = resized[in_image_y, in_image_x]
        if shown.shape != tile.shape:
            tile[...] = 0  # black
        tile[in_tile_y, in_tile_x] = shown


def _overlap(tile: int, tile_px: int, image: int, image_px: int) -> tuple[slice, slice]:
    """Where a tile and the image overlap along one side, counted from the tile's and from the image's beginning.

    tile, image: where they begin on the canvas.
    """
    first = max(tile, image)
    last = max(first, min(tile + tile_px, image + image_px))
    return slice(first - tile, last - tile), slice(first - image, last - image)
