"""Boxes of faces, the column `face_bboxes`: those that the source has, or those of a cascade."""

from collections.abc import Callable
import math
from typing import Any, Literal

import numpy as np
import PIL.Image

from xgenmm_jax.curation.extra import import_extra
from xgenmm_jax.curation.images import SourceImage

Faces = Literal["source", "cascade", "none"]
"""source: the source's own column, [] where it has none. cascade: found by scikit-image's cascade of local binary
patterns, which sees upright frontal faces and misses most others. none: the column is left out."""

CASCADE_PX = 640
"""Longest side at which an image is searched; the smallest face is CASCADE_LEAST_PX there."""
CASCADE_LEAST_PX = 32
SCIKIT_IMAGE = "`pip install scikit-image -c requirements-curation.txt` installs it"

Box = list[float]


def check(faces: Faces) -> None:
    """Raises ValueError where scikit-image is missing and wanted."""
    if faces == "cascade":
        import_extra("skimage", SCIKIT_IMAGE)


def finder(faces: Faces) -> Callable[[SourceImage], list[Box]]:
    """What gives x1, y1, x2, y2 of each face as fractions of the image.

    Raises ValueError where scikit-image is missing.
    """
    if faces != "cascade":
        return lambda image: source_boxes(image.columns.get("face_bboxes"))
    data = import_extra("skimage.data", SCIKIT_IMAGE)
    feature = import_extra("skimage.feature", SCIKIT_IMAGE)
    cascade = feature.Cascade(data.lbp_frontal_face_cascade_filename())
    return lambda image: _found(cascade, image.pixels)


def source_boxes(value: Any) -> list[Box]:
    """Boxes as DataComp's tables have them; what is none of four finite numbers is passed over."""
    boxes = value if isinstance(value, list) else []
    taken = []
    for box in boxes:
        numbers = box if isinstance(box, list) else []
        if len(numbers) == 4 and all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
            taken.append([float(one) for one in numbers])
    return taken


def _found(cascade: Any, pixels: PIL.Image.Image) -> list[Box]:
    scale = min(1.0, CASCADE_PX / max(pixels.size))
    width, height = (max(1, round(side * scale)) for side in pixels.size)
    if min(width, height) < CASCADE_LEAST_PX:
        return []
    small = np.asarray(pixels.resize((width, height), PIL.Image.Resampling.BILINEAR))
    most = min(width, height)
    detections = cascade.detect_multi_scale(
        img=small, scale_factor=1.2, step_ratio=1, min_size=(CASCADE_LEAST_PX,) * 2, max_size=(most, most)
    )
    boxes = []
    for one in detections:
        left, top = one["c"] / width, one["r"] / height
        boxes.append([float(left), float(top), float(left + one["width"] / width), float(top + one["height"] / height)])
    return sorted(boxes)
