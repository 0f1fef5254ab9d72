"""Where a box lies, in words and in numbers, as BLIP3-OCR-200M and BLIP3-GROUNDING-50M say it.

Source: docs/reference/data.md#ocr-captions.
"""

FractionBox = tuple[float, float, float, float]
"""x1, y1, x2, y2 as fractions of the image's width and height, 0 to 1; of a detector that does not clip also beyond."""

CELLS = (
    *("at the top left corner", "above the center", "at the top right corner"),
    *("to the left of the center", "in the center", "to the right of the center"),
    *("at the bottom left corner", "below the center", "at the bottom right corner"),
)


def cell(box: FractionBox) -> str:
    """Where the center of a box lies, by thirds of the image; one on a line between two belongs to the later."""
    return CELLS[3 * _third((box[1] + box[3]) / 2) + _third((box[0] + box[2]) / 2)]


def _third(value: float) -> int:
    return (value >= 1 / 3) + (value >= 2 / 3)


def corner(x: float, y: float, digits: int) -> str:
    """A point as released captions write it: `[0.12, 0.5]`, without trailing zeros."""
    return f"[{round(x, digits)}, {round(y, digits)}]"
