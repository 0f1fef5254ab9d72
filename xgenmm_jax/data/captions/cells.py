"""Where a box lies, in words and in numbers, as BLIP3-OCR-200M and BLIP3-GROUNDING-50M say it.

Source: docs/reference/data.md#ocr-captions.
"""

FractionBox = tuple[float, float, float, float]
"""x1, y1, x2, y2 as fractions of the image's width and height, 0 to 1."""

CELLS = (
    *("at the top left corner", "above the center", "at the top right corner"),
    *("to the left of the center", "in the center", "to the right of the center"),
    *("at the bottom left corner", "below the center", "at the bottom right corner"),
)


def cell(box: FractionBox) -> str:
    """Where the center of a box lies, by thirds of the image."""
    column = min(2, int(3 * (box[0] + box[2]) / 2))
    row = min(2, int(3 * (box[1] + box[3]) / 2))
    return CELLS[3 * row + column]


def corner(x: float, y: float, digits: int) -> str:
    """A point as released captions write it: `[0.12, 0.5]`, without trailing zeros."""
    return f"[{round(x, digits)}, {round(y, digits)}]"
