"""Boxes in text, and how well two agree."""

import itertools
import math
import re

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in fractions of the image's width and height."""

_NUMBER = re.compile(
    r"""(?<![A-Za-z_\d])(?<!\d\.)              # not the 1 of "x1", nor the .3 of "1.2.3"
    (?P<sign>(?<![A-Za-z_\d.)\]%])[-+\u2212])?  # "0.1 -0.2" has a sign, "0.1-0.2" two numbers
    (?P<digits>(?:\d+\.?\d*|\.\d+)(?:[eE][-+\u2212]?\d+)?)
    (?P<percent>\s?%)?""",
    re.VERBOSE,
)


def parse_box(text: str) -> Box | None:
    """The first box of a text: the first four numbers inside or behind `<bbox>`, else behind a `[`, else of the text.

    None without four. In "2 cats: [0.1, 0.2][0.5, 0.6]" the 2 is none of them, "0.1 0.2 0.5 0.6" needs no brackets.
    Their kind does not matter, the paper's figure closes some with another: `<bbox>[0.1, 0.2]<0.5, 0.6]</bbox>`.
    A box whose corners are swapped is put in order. Numbers may have a sign, an exponent (1e-05) and a percent sign
    (50% is 0.5), and end a sentence; a comma always parts two. One that no float holds (1e999) makes no box.
    """
    inside = text.split("<bbox>", 1)[-1].split("</bbox>", 1)[0]
    parts = (inside[max(inside.find("["), 0) :], inside)
    numbers = next((four for part in parts if len(four := _numbers(part)) == 4), [])
    if not numbers or not all(map(math.isfinite, numbers)):
        return None
    x0, y0, x1, y1 = numbers
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _numbers(text: str) -> list[float]:
    """The first four numbers of a text, at most."""
    numbers = []
    for match in itertools.islice(_NUMBER.finditer(text), 4):
        value = float(((match["sign"] or "") + match["digits"]).replace("\u2212", "-"))
        numbers.append(value / 100 if match["percent"] else value)
    return numbers


def box_iou(a: Box, b: Box) -> float:
    """Area of the intersection over that of the union, in [0, 1]; 0 where both have no area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0.0) * max(height, 0.0)
    union = _area(a) + _area(b) - intersection
    return intersection / union if union > 0 else 0.0


def text_iou(prediction: str, truth: str) -> float:
    """IoU of the first boxes of two texts; 0 where the prediction has none.

    Raises: ValueError where the truth has no box.
    """
    true_box = parse_box(truth)
    if true_box is None:
        raise ValueError(
            f"box: the truth {truth!r} holds no four numbers; give answers as <bbox>[x0, y0][x1, y1]</bbox>"
        )
    box = parse_box(prediction)
    return 0.0 if box is None else box_iou(box, true_box)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
