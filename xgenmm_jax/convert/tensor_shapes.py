"""Sizes read from the shapes of a checkpoint's tensors, and what its caller or its config.json say beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
import math
import re
from typing import Any

from xgenmm_jax.convert.rules import Shape
from xgenmm_jax.models.vit import Activation

Settings = Mapping[str, Any]
"""A config.json, or a part of it."""


@dataclass(frozen=True)
class Overrides:
    """What the caller says of a checkpoint; None: what its tensors, its config.json or the released sizes say."""

    vision_heads: int | None = None
    decoder_heads: int | None = None
    activation: Activation | None = None
    connector_heads: int | None = None


NO_OVERRIDES = Overrides()


class TensorShapes:
    """Shapes by name, with fallbacks: a missing tensor must not keep the others from being listed."""

    def __init__(self, shapes: Mapping[str, Shape]):
        self.shapes = shapes

    def size(self, default: int, *axes: tuple[str, int]) -> int:
        """The first of these (name, axis) that is there."""
        for name, axis in axes:
            shape = self.shapes.get(name, ())
            if axis < len(shape):
                return shape[axis]
        return default

    def layers(self, stem: str, default: int) -> int:
        """One more than the largest number behind a stem."""
        pattern = re.compile(re.escape(stem) + r"(\d+)")
        numbers = [int(match[1]) for name in self.shapes if (match := pattern.match(name))]
        return max(numbers) + 1 if numbers else default

    def prefix(self, *patterns: str) -> str | None:
        """What stands before the first name that matches one of these."""
        for pattern in patterns:
            for name in self.shapes:
                if match := re.fullmatch(f"(.*?){pattern}", name):
                    return match[1]
        return None


def square_grid(patches: int) -> int:
    """Patches on a side. Raises ValueError where they form no square."""
    grid = math.isqrt(patches)
    if grid * grid != patches:
        raise ValueError(f"checkpoint: {patches} positions of patches are no square; only square towers are read.")
    return grid


def head_count(width: int, override: int | None, settings: Settings, released: Mapping[int, int], option: str) -> int:
    """Heads of a model of this width. Raises ValueError, which names the option, where nothing says it."""
    heads = override or settings.get("num_attention_heads") or released.get(width)
    if heads is None:
        raise ValueError(
            f"checkpoint: tensors do not tell the number of heads, and {width} is no released width; put its "
            f"config.json beside it, or give {option}."
        )
    if width % heads:
        raise ValueError(f"checkpoint: {heads} heads do not divide the width {width}; give the right {option}.")
    return heads
