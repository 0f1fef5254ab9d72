"""Captions of the drawn world with pictures of them, to be drawn."""

from dataclasses import dataclass
import functools
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.source import Records
from xgenmm_jax.nano.drawing import prompts
from xgenmm_jax.nano.world import draw, draw_text, drawings
from xgenmm_jax.nano.world.splits import Split
from xgenmm_jax.nano.world.world import BASE_PX


@dataclass(frozen=True)
class CaptionsToDraw:
    """Captions of the drawn world, `drawing.prompts`, and true pictures of them.

    length: how many; one epoch is a permutation of them. seed: numbers of other seeds are other captions.
    detail: "both", or captions that tell everything ("dense"), or that leave things open ("open").
    """

    licence: ClassVar[str] = "none needed: drawn by this code"
    limits: ClassVar[str] = "It draws the shapes and drawings of a small world, 64 pixels a side, and nothing else."

    length: int = 200_000
    seed: int = 0
    split: Split = "train"
    detail: Literal["both", "dense", "open"] = "both"

    def open(self) -> Records:
        """Raises ValueError where a library whose wheel holds the fonts or the digits is missing."""
        draw_text.font_folder()
        drawings.digit_count(self.split)
        return _Captions(self)

    def files(self) -> list[Path]:
        return []


class _Captions:
    def __init__(self, config: CaptionsToDraw):
        self.name = f"drawing/{config.detail}"
        self._config = config

    def __len__(self) -> int:
        return self._config.length

    def record(self, index: int, rng: np.random.Generator) -> Caption:
        config = self._config
        number = config.seed * config.length + index
        tag = None
        if config.detail == "dense":
            tag = "dense"
        elif config.detail == "open":
            open_tags = [one for one in prompts.tags(config.split) if one != "dense"]
            tag = open_tags[number % len(open_tags)]
        prompt, scene = prompts.described(number, config.split, tag)
        image = LazyImage((BASE_PX, BASE_PX), functools.partial(draw.draw, scene))
        return Caption(f"{self.name}/{config.split}/{number}", image, prompt.caption)
