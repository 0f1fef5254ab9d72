"""Captions of the text in an image, in the words of BLIP3-OCR-200M.

The templates reproduce released rows to the letter, spelling ("upto") and a stray quote included
(docs/reference/data.md#ocr-captions).
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from xgenmm_jax.data.captions.cells import FractionBox, cell, corner

Granularity = Literal[0, 1, 2, 3, 4, 5]
"""How exactly the place of a text is told: 0 not at all, 1 by a word, 2 by fractions, 3 to 5 by corners."""

PREFIX = "The image contains "


def segment(text: str, box: FractionBox, granularity: Granularity, filler: bool) -> str:
    """What one string contributes to a caption.

    `the text "NY" located in the center` with filler, `"NY" located in the center` without.
    """
    x1, y1, x2, y2 = box
    quoted = f'the text "{text}"' if filler else f'"{text}"'
    if granularity == 0:
        return quoted
    if granularity == 1:
        return f"{quoted} located {cell(box)}"
    if granularity == 2:
        down, right = _fraction((y1 + y2) / 2), _fraction((x1 + x2) / 2)
        return f"{quoted} located at {down} of the image from top to bottom and {right} of the image from left to right"
    if granularity == 3:
        return f"{quoted} approximately starts at {corner(x1, y1, 1)} and extends upto {corner(x2, y2, 1)}"
    if granularity == 4:
        return f"{quoted} starts at {corner(x1, y1, 3)} and extends upto {corner(x2, y2, 3)}"
    opening = 'the <ocr>"' if filler else "<ocr>"
    return f"{opening}{text}</ocr><bbox>{corner(x1, y1, 3)}{corner(x2, y2, 3)}</bbox>"


def _fraction(value: float) -> str:
    return str(Fraction(value).limit_denominator(20))


def caption(
    entries: Sequence[tuple[str, FractionBox]],
    granularity: Granularity,
    filler: bool = True,
    raw_caption: str | None = None,
) -> str:
    """An image's strings as one caption; without filler it is `"NY", "BURGER"` at granularity 0.

    raw_caption: the image's alt text, which stands before the strings: `A diner. The image contains the text "NY"`.
    With filler it is there to the letter, even where it is empty; without filler an empty one leaves no trace.
    """
    joined = ", ".join(segment(text, box, granularity, filler) for text, box in entries)
    text = f"{PREFIX}{joined}" if filler else joined
    if raw_caption is None or not (filler or raw_caption.strip()):
        return text
    return f"{raw_caption}. {text}"
