"""Random crops and flips of captions' images, drawn anew in each epoch.

Source: torchvision's RandomResizedCrop and RandomHorizontalFlip with the settings of LAVIS' `blip2_image_train`
(docs/reference/blip2.md#recipe). The crop is squashed to the tower's size later, as any image; theirs is, at once.
"""

import dataclasses
from dataclasses import dataclass
import functools
import math
from typing import ClassVar

import numpy as np
import PIL.Image

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.records import Caption, LazyImage, Record

TRIES = 10
"""For a crop that fits, before the largest one in the middle is taken."""


@dataclass(frozen=True)
class RandomCrops:
    """A part of each image, turned left to right in half of the draws: the change of a source (`Mapped`).

    least, most: of the image's area. narrowest, widest: width over height. flip: the share that is turned.
    """

    least: float = 0.5
    most: float = 1.0
    narrowest: float = 3 / 4
    widest: float = 4 / 3
    flip: float = 0.5

    label: ClassVar[str] = "crops"
    draws: ClassVar[bool] = True

    def __post_init__(self):
        if not (0 < self.least <= self.most <= 1 and 0 < self.narrowest <= self.widest and 0 <= self.flip <= 1):
            raise ValueError(
                f"data: RandomCrops has areas {self.least} to {self.most}, shapes {self.narrowest} to {self.widest} "
                f"and flip {self.flip}; wanted areas above 0 to 1, shapes above 0, the lower first, and a share."
            )

    def __call__(self, record: Record, rng: np.random.Generator) -> Caption:
        """Raises RecordError for what is no caption."""
        if not isinstance(record, Caption):
            raise RecordError(record.id, f"it is a {type(record).__name__}, wanted a Caption")
        box = self.box(record.image.size_px, rng)
        size_px = box[2] - box[0], box[3] - box[1]
        load = functools.partial(_cropped, record.image, box, bool(rng.random() < self.flip))
        return dataclasses.replace(record, image=LazyImage(size_px, load), whole=record.whole or record.image)

    def box(self, size_px: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of a crop of an image of (width, height)."""
        width, height = size_px
        for _ in range(TRIES):
            area = width * height * rng.uniform(self.least, self.most)
            shape = math.exp(rng.uniform(math.log(self.narrowest), math.log(self.widest)))
            w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                return left, top, left + w, top + h
        # The largest of a shape that is allowed, in the middle.
        w, h = width, height
        if width < self.narrowest * height:
            h = round(width / self.narrowest)
        elif width > self.widest * height:
            w = round(height * self.widest)
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def _cropped(image: LazyImage, box: tuple[int, int, int, int], turns: bool) -> PIL.Image.Image:
    crop = image.load().crop(box)
    return crop.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if turns else crop
