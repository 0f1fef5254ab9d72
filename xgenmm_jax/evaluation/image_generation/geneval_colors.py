"""What GenEval's color model sees of a detected object, and how it names a color from encoded texts and pictures.

The encoder is CLIP ViT-L/14 (docs/reference/blip3o.md#image-benchmarks), which is not part of this.
"""

from typing import Literal

from jaxtyping import Bool, Float, Float32, UInt8
import numpy as np

TEMPLATES = ("a photo of a {color} {noun}", "a photo of a {color}-colored {noun}", "a photo of a {color} object")
GRAY = (153, 153, 153)
"""The published background, #999."""


def crop(
    image: UInt8[np.ndarray, "h w 3"],
    box: Float32[np.ndarray, "..."],
    mask: Bool[np.ndarray, "h w"] | None,
    background: tuple[int, int, int] | Literal["original"] = GRAY,
    is_cropped: bool = True,
) -> UInt8[np.ndarray, "height width 3"]:
    """The box of a picture, with `background` where the mask is off. Outside the picture it is black.

    Edges are rounded half to even, so a box thinner than half a pixel may be empty.
    """
    shown = image
    if mask is not None and background != "original":
        shown = np.where(mask[..., None], image, np.array(background, np.uint8))
    if not is_cropped:
        return shown
    left, top, right, bottom = (int(round(float(edge))) for edge in box[:4])
    height, width = shown.shape[:2]
    result = np.zeros((max(bottom - top, 0), max(right - left, 0), 3), np.uint8)
    rows = slice(max(top, 0), max(min(bottom, height), 0))
    columns = slice(max(left, 0), max(min(right, width), 0))
    inside = shown[rows, columns]
    if inside.size:
        y, x = rows.start - top, columns.start - left
        result[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return result


def color_logits(
    images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "colors templates d"]
) -> Float[np.ndarray, "n colors"]:
    """100 x cosine of each image with each color, whose vector is the normed mean of its normed templates."""
    means = _normed(texts).mean(axis=1)
    return 100 * _normed(images) @ _normed(means).T


def _normed(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
