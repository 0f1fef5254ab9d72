"""BLIP3-GROUNDING-50M: captions in which the place of objects is told, at three granularities.

Source: docs/reference/data.md#blip3-grounding-50m, docs/reference/data.md#grounding-captions
"""

import ast
from dataclasses import dataclass
import re
from typing import ClassVar, Literal, get_args

from xgenmm_jax.data.captions import grounding
from xgenmm_jax.data.errors import RecordError, shown
from xgenmm_jax.data.readers.images import OneImage, row_of
from xgenmm_jax.data.records import Caption
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.files import without_surrogates

MOST_CHARACTERS = 1 << 18
"""The longest literal that is read; six captions of a row have some thousand."""

# The parts of a literal as Python's repr writes one: texts, brackets, commas, whole numbers and truth values. A text
# that touches another quote is refused, since three quotes begin a text in which brackets count otherwise.
_ESCAPE = r"\\(?:[\\'\"nrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
_PART = re.compile(
    rf"""(?P<text>'(?:[^'\\\n]|{_ESCAPE})*'(?!['"])|"(?:[^"\\\n]|{_ESCAPE})*"(?!['"]))"""
    r"|(?P<open>\[)|(?P<close>\])|,|\s|\d{1,9}|True|False"
)


@dataclass(frozen=True)
class Grounding(OneImage):
    """A `Caption` out of a row's column `captions`, a Python literal of texts, their granularity and raw captions.

    The released rows have no images: see `Ocr`.

    granularity: how the places of objects are told, 0 by a word, 1 by corners in words, 2 by corners in tags.
    raw: the text that begins with the image's alt text.
    template: what stands for each object and its box, "{object} [{x1:.2f}, {y1:.2f}, {x2:.2f}, {y2:.2f}]"
        (`grounding.check_template`); made of granularity 2.
    boxes: "keep" leaves boxes that reach beyond the image as they were released, "clip" ends them at its edges.
    """

    granularity: grounding.Level = 0
    raw: bool = False
    template: str | None = None
    boxes: Literal["keep", "clip"] = "keep"

    label: ClassVar[str] = "grounding"

    def __post_init__(self):
        super().__post_init__()
        if self.granularity not in get_args(grounding.Level):
            raise ValueError(f"data: Grounding(granularity={self.granularity!r}); wanted 0 to 2.")
        if self.boxes not in ("keep", "clip"):
            raise ValueError(f"data: Grounding(boxes={self.boxes!r}); wanted 'keep' or 'clip'.")
        if self.boxes == "clip" and self.granularity == 0:
            raise ValueError("data: granularity 0 has no boxes to clip; wanted 1 or 2, or boxes='keep'.")
        if self.template is not None:
            if self.granularity != 2:
                raise ValueError(
                    f"data: a template is filled from granularity 2, got {self.granularity}; give granularity=2."
                )
            grounding.check_template(self.template)

    @property
    def fields(self) -> tuple[str, ...]:
        return ("captions", *self.image_fields)

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where `captions` is not of the released form, or there is no image."""
        row = row_of(raw)
        text = self._caption(row)
        try:
            if self.template is not None:
                text = grounding.rewritten(text, self.template, clip=self.boxes == "clip")
            elif self.boxes == "clip":
                text = grounding.clipped(text, self.granularity)
        except ValueError as error:
            raise RecordError(row.key, error) from error
        return Caption(raw.key, self.image_of(row), text)

    def _caption(self, row: Raw) -> str:
        try:
            captions = released(row.text("captions"))
        except ValueError as error:
            if isinstance(error, RecordError):
                raise
            raise RecordError(row.key, f"'captions' {error}") from error
        for text, granularity, has_raw_caption in captions:
            if granularity == self.granularity and has_raw_caption == self.raw:
                if not text.strip():
                    raise RecordError(row.key, f"the caption of granularity {granularity} is empty")
                return text
        which = "with" if self.raw else "without"
        raise RecordError(row.key, f"'captions' has none of granularity {self.granularity} {which} the raw caption")


def released(literal: str) -> list[tuple[str, int, bool]]:
    """What the literal of a column `captions` says: text, granularity, whether it begins with the raw caption.

    Nothing is evaluated, and nothing is parsed that could cost more than its length: the literal is a list of lists of
    a text, a whole number and True or False, and its form is checked before Python's parser sees it.

    Raises ValueError, a predicate without its subject, where it is anything else.
    """
    if len(literal) > MOST_CHARACTERS:
        raise ValueError(f"has {len(literal):,} characters, more than {MOST_CHARACTERS:,}")
    _check_form(literal)
    try:
        captions = ast.literal_eval(literal.strip())
    except (ValueError, SyntaxError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"is no Python literal ({reason})") from error
    if not isinstance(captions, list):
        raise ValueError(f"is {type(captions).__name__}, wanted a list")
    for one in captions:
        if not isinstance(one, list) or tuple(map(type, one)) != (str, int, bool):
            raise ValueError(f"has {shown(one)}, wanted [caption, granularity, whether it has the raw caption]")
    return [(without_surrogates(text), granularity, has_raw) for text, granularity, has_raw in captions]


def _check_form(literal: str) -> None:
    """Raises ValueError unless the literal has the parts of a list of lists alone."""
    at = depth = 0
    while at < len(literal):
        part = _PART.match(literal, at)
        if part is None:
            raise ValueError(
                f"has {literal[at : at + 20]!r} at character {at:,}; wanted a list of [caption, granularity, True or "
                "False]"
            )
        depth += (part["open"] is not None) - (part["close"] is not None)
        if not 0 <= depth <= 2:
            raise ValueError(f"is nested otherwise than a list of lists at character {at:,}")
        at = part.end()
