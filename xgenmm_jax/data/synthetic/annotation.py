"""Captions with places and boxes in the words of BLIP3-OCR-200M and BLIP3-GROUNDING-50M.

The OCR templates reproduce released rows to the letter, spelling ("upto") and a stray quote included
(docs/reference/data.md#ocr-captions).
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from xgenmm_jax.data.synthetic import language
from xgenmm_jax.data.synthetic.world import Scene, Thing

Granularity = Literal[0, 1, 2, 3, 4, 5]
FractionBox = tuple[float, float, float, float]  # x1, y1, x2, y2 of the picture, 0 to 1

CELLS = (
    *("at the top left corner", "above the center", "at the top right corner"),
    *("to the left of the center", "in the center", "to the right of the center"),
    *("at the bottom left corner", "below the center", "at the bottom right corner"),
)


def cell(box: FractionBox) -> str:
    """Where the center of a box lies, by thirds of the picture."""
    column = min(2, int(3 * (box[0] + box[2]) / 2))
    row = min(2, int(3 * (box[1] + box[3]) / 2))
    return CELLS[3 * row + column]


def _fraction(value: float) -> str:
    return str(Fraction(value).limit_denominator(20))


def _corner(x: float, y: float, digits: int) -> str:
    return f"[{round(x, digits)}, {round(y, digits)}]"


def ocr_segment(text: str, box: FractionBox, granularity: Granularity, filler: bool) -> str:
    """What one string contributes to an OCR caption.

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
        return f"{quoted} approximately starts at {_corner(x1, y1, 1)} and extends upto {_corner(x2, y2, 1)}"
    if granularity == 4:
        return f"{quoted} starts at {_corner(x1, y1, 3)} and extends upto {_corner(x2, y2, 3)}"
    opening = 'the <ocr>"' if filler else "<ocr>"
    return f"{opening}{text}</ocr><bbox>{_corner(x1, y1, 3)}{_corner(x2, y2, 3)}</bbox>"


def ocr_caption(entries: Sequence[tuple[str, FractionBox]], granularity: Granularity, filler: bool = True) -> str:
    """A picture's strings as one caption; without filler it is `"NY", "BURGER"` at granularity 0."""
    joined = ", ".join(ocr_segment(text, box, granularity, filler) for text, box in entries)
    return f"The image contains {joined}" if filler else joined


def fraction_box(thing: Thing, size_px: tuple[int, int], digits: int = 2) -> FractionBox:
    """A thing's box as fractions of the picture, rounded: two digits are as fine as a pixel of a base view."""
    width, height = size_px
    left, top, right, bottom = thing.box
    x1, x2, y1, y2 = (round(v, digits) for v in (left / width, right / width, top / height, bottom / height))
    return (x1, y1, x2, y2)


def grounding_caption(scene: Scene, level: Literal[0, 1, 2]) -> str:
    """Every thing with its place: (0) in words, (1) by corners in words, (2) `<object>cat</object><bbox>...</bbox>`."""
    return language.enumeration([_grounded(t, scene.size_px, level) for t in language.reading_order(scene)])


def _grounded(thing: Thing, size_px: tuple[int, int], level: Literal[0, 1, 2]) -> str:
    if level == 0:
        return f"{language.phrase(thing)} ({cell(fraction_box(thing, size_px, 6))})"
    noun = language.noun(thing)
    determiner = language.phrase(thing).removesuffix(noun)
    box = language.box_text(thing.box, size_px)
    if level == 1:
        start, end = box.split("][")
        return f"{determiner}{noun} (starts at {start}] and extends upto [{end})"
    return f"{determiner}<object>{noun}</object><bbox>{box}</bbox>"
