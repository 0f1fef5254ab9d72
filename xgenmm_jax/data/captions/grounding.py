"""Objects with their places, in the words of BLIP3-GROUNDING-50M: written, and read back out of released captions.

Source: docs/reference/data.md#grounding-captions.
"""

from collections.abc import Callable
import re
import string
from typing import Literal

from xgenmm_jax.data.captions.cells import FractionBox, cell

Level = Literal[0, 1, 2]
"""How the place of an object is told: 0 by a word, 1 by corners in words, 2 by corners in tags."""

TEMPLATE_NAMES = ("object", "x1", "y1", "x2", "y2")
"""What a template may name; the corners are fractions of the image."""

_NUMBER = r"(-?\d{1,20}(?:\.\d{1,20})?)"
_CORNER = rf"\[{_NUMBER}, {_NUMBER}\]"
# Each level's form, and marks that stand once in each place of an object and nowhere else.
_CORNERS = {
    1: (re.compile(rf"()\(starts at {_CORNER} and extends upto {_CORNER}\)"), ("(starts at [",)),
    2: (
        re.compile(rf"<object>((?:(?!<object>).)*?)</object><bbox>{_CORNER}{_CORNER}</bbox>", re.DOTALL),
        ("<object>", "</object>", "<bbox>", "</bbox>"),
    ),
}


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


def check_template(template: str) -> None:
    """Raises ValueError unless a template of an object and its box has names of `TEMPLATE_NAMES` alone.

    Numbers may have a precision, `{x1:.2f}`; the object is named once or more. Nothing else of Python's format strings
    is taken: no attribute, index, conversion or width.
    """
    remedy = "wanted " + ", ".join(f"{{{name}}}" for name in TEMPLATE_NAMES) + ", numbers perhaps as {x1:.2f}"
    try:
        parts = [part[1:] for part in string.Formatter().parse(template)]
    except ValueError as error:
        raise ValueError(f"data: the template {template!r} is no format string ({error}); {remedy}.") from error
    named = [part for part in parts if part[0] is not None]
    for name, form, conversion in named:
        form_taken = "" if name == "object" else r"(\.\d?\df)?"
        if name not in TEMPLATE_NAMES or conversion is not None or not re.fullmatch(form_taken, form or ""):
            said = f"{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
            raise ValueError(f"data: the template {template!r} has '{{{said}}}'; {remedy}.")
    if "object" not in [name for name, _, _ in named]:
        raise ValueError(f"data: the template {template!r} leaves the object out; {remedy}.")


def clipped(caption: str, level: Level) -> str:
    """A caption of level 1 or 2 whose boxes end at the image's edges; what lies inside stays to the letter.

    Raises ValueError where it has a box of another form.
    """

    def written(match: re.Match[str]) -> str:
        text, start = match[0], match.start()
        # From the last to the first, so that places of earlier ones stay.
        for group in (5, 4, 3, 2):
            value = float(match[group])
            if not 0 <= value <= 1:
                first, end = match.start(group) - start, match.end(group) - start
                text = f"{text[:first]}{min(1.0, max(0.0, value))}{text[end:]}"
        return text

    return _replaced(caption, level, written)


def rewritten(caption: str, template: str, clip: bool = False) -> str:
    """A caption of level 2 with each object and its box in the words of a template (`check_template`).

    With "{object} at {x1:.1f}", `a <object>cat</object><bbox>[0.12, 0.2][0.3, 0.4]</bbox>` becomes `a cat at 0.1`.
    clip: boxes end at the image's edges.

    Raises ValueError where it has a box of another form.
    """

    def written(match: re.Match[str]) -> str:
        numbers = [float(match[group]) for group in (2, 3, 4, 5)]
        if clip:
            numbers = [min(1.0, max(0.0, number)) for number in numbers]
        return template.format_map(dict(zip(TEMPLATE_NAMES, (match[1], *numbers), strict=True)))

    return _replaced(caption, 2, written)


def _replaced(caption: str, level: Level, written: Callable[[re.Match[str]], str]) -> str:
    pattern, marks = _CORNERS[level]
    text, count = pattern.subn(written, caption)
    other = next((mark for mark in marks if caption.count(mark) != count), None)
    if other is not None:
        raise ValueError(
            f"{count} boxes of the form of level {level} and {caption.count(other)} times '{other}'; they differ"
        )
    return text
