"""Sources of the drawn world: records described when they are asked for, and two changes of their images."""

from dataclasses import dataclass
import functools
from pathlib import Path
from typing import ClassVar

import numpy as np
import PIL.Image

from xgenmm_jax.data.captions import ocr
from xgenmm_jax.data.records import LazyImage, Record, images_of, with_images
from xgenmm_jax.data.source import Records
from xgenmm_jax.nano.world import draw, draw_text, drawings, families, symbolic_images
from xgenmm_jax.nano.world.splits import Split


@dataclass(frozen=True)
class Synthetic:
    """Records of one family of the drawn world.

    length: how many; one epoch is a permutation of them. filler, granularity: how OCR captions are worded.
    """

    licence: ClassVar[str] = "none needed: drawn by this code"
    limits: ClassVar[str] = "It was trained on pictures drawn by code, and knows photographs little or not at all."

    family: families.Family
    length: int = 100_000
    seed: int = 0
    split: Split = "train"
    filler: bool = False
    granularity: ocr.Granularity = 0

    def open(self) -> Records:
        """Raises ValueError where a library whose wheel holds the fonts or the digits is missing."""
        draw_text.font_folder()
        drawings.digit_count(self.split)
        return _SyntheticRecords(self)

    def files(self) -> list[Path]:
        return []


class _SyntheticRecords:
    def __init__(self, config: Synthetic):
        self.name = f"synthetic/{config.family}"
        self._config = config

    def __len__(self) -> int:
        return self._config.length

    def record(self, index: int, rng: np.random.Generator) -> Record:
        config = self._config
        return families.record(
            config.family,
            index,
            seed=config.seed,
            split=config.split,
            filler=config.filler,
            granularity=config.granularity,
        )


@dataclass(frozen=True)
class Squash:
    """Images squashed to `side_px` square, as the global view of any-res is.

    So that a model which sees grids of crops also sees the same images in a single view.
    """

    side_px: int

    @property
    def label(self) -> str:
        return f"{self.side_px}px"

    def __call__(self, record: Record) -> Record:
        side_px = self.side_px
        new = (LazyImage((side_px, side_px), functools.partial(_squash, p, side_px)) for p in images_of(record))
        return with_images(record, tuple(new))


def _squash(image: LazyImage, side_px: int) -> PIL.Image.Image:
    return image.load().resize((side_px, side_px), PIL.Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Symbolic:
    """Images as symbolic images (`world/symbolic_images.py`): what the language model begins with.

    Raises ValueError at a record whose images are not 64 x 64.
    """

    label = "words"

    def __call__(self, record: Record) -> Record:
        return with_images(record, tuple(symbolic_images.in_words(draw.scene_of(p)) for p in images_of(record)))
