"""Attention laid over images: weights of patches as heat over an image, and the image lit by it."""

import math

from jaxtyping import Float
import numpy as np
import PIL.Image


def on_canvas(
    weights_CQP: Float[np.ndarray, "C Q P"], grid: tuple[int, int], side: int, strips: bool
) -> Float[np.ndarray, "n h w"]:
    """One canvas for each query of each crop, zero where that query cannot see."""
    columns, rows = grid
    crops, queries, patches = weights_CQP.shape
    canvas = np.zeros((crops, queries, rows * side, columns * side), np.float32)
    for crop in range(crops):
        if strips:
            flat = canvas[crop].reshape(queries, -1)
            flat[:, crop * patches : (crop + 1) * patches] = weights_CQP[crop]
        else:
            top, left = crop // columns * side, crop % columns * side
            canvas[crop, :, top : top + side, left : left + side] = weights_CQP[crop].reshape(queries, side, side)
    return canvas.reshape(crops * queries, rows * side, columns * side)


def canvas_to_image(
    heat: Float[np.ndarray, "h w"], image_px: tuple[int, int], target_px: tuple[int, int], squashed: bool
) -> Float[np.ndarray, "H W"]:
    """Heat over feature cells as heat over an image of `target_px` (width, height), 0 to 1.

    squashed: the cells cover the whole image (global view); else the image lies centered on the canvas, as
    `anyres.crops` lays it. A 64 x 32 image on a canvas of 16 x 16 cells covers rows 4 to 12.
    """
    rows, columns = heat.shape
    scale = min(columns / image_px[0], rows / image_px[1])
    width, height = (columns, rows) if squashed else (image_px[0] * scale, image_px[1] * scale)
    left, top = (columns - width) / 2, (rows - height) / 2
    image = PIL.Image.fromarray(heat.astype(np.float32) / max(float(heat.max()), 1e-12))
    resized = image.resize(target_px, PIL.Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    return np.clip(np.asarray(resized), 0.0, 1.0)


def spotlight(image: PIL.Image.Image, heat: Float[np.ndarray, "H W"]) -> PIL.Image.Image:
    """The image lit where it was looked at, night blue elsewhere: readable without telling colors apart."""
    width, height = heat.shape[1], heat.shape[0]
    kernel = PIL.Image.Resampling.NEAREST if width > image.width else PIL.Image.Resampling.BICUBIC
    pixels = np.asarray(image.convert("RGB").resize((width, height), kernel), np.float32)
    light = 0.12 + 0.88 * np.power(heat, 0.8)[..., None]
    night = np.array([18, 24, 52], np.float32)
    return PIL.Image.fromarray(np.uint8(pixels * light + night * (1 - light)))


def enlarged(size_px: tuple[int, int], longer_px: int) -> tuple[int, int]:
    """The size with its longer side at `longer_px`."""
    scale = longer_px / max(size_px)
    return max(1, math.floor(size_px[0] * scale + 0.5)), max(1, math.floor(size_px[1] * scale + 0.5))
