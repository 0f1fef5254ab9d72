"""Objects with their places, in the words of BLIP3-GROUNDING-50M.

Source: docs/reference/data.md#grounding-captions.
"""

from typing import Literal

from xgenmm_jax.data.captions.cells import FractionBox, cell

Level = Literal[0, 1, 2]
"""How the place of an object is told: 0 by a word, 1 by corners in words, 2 by corners in tags."""


def grounded(determiner: str, noun: str, box: FractionBox, corners: str, level: Level) -> str:
    """A noun with its place.

    determiner: what stands before the noun, with its space: "a "; or "". box: for level 0. corners: both corners as
    they are to be written, "[0.12, 0.30][0.45, 0.60]".

    Example: `a cat (in the center)`, `a cat (starts at [0.1, 0.2] and extends upto [0.3, 0.4])`,
    `a <object>cat</object><bbox>[0.1, 0.2][0.3, 0.4]</bbox>`.
    """
    if level == 0:
        return f"{determiner}{noun} ({cell(box)})"
    if level == 1:
        start, end = corners.split("][")
        return f"{determiner}{noun} (starts at {start}] and extends upto [{end})"
    return f"{determiner}<object>{noun}</object><bbox>{corners}</bbox>"
