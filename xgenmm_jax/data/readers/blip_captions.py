"""Captions as BLIP and BLIP-2 write them before they are trained on, and questions before they are asked.

Source: docs/reference/blip2.md#recipe
"""

import dataclasses
from dataclasses import dataclass
import re
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.records import Caption, Record

MARKS = re.compile(r'[.!"()*#:;~]')
MOST_WORDS = 50


@dataclass(frozen=True)
class BlipCaptions:
    """Lower case, MARKS as spaces, at most so many words: the change of a source (`Mapped`).

    Example: 'A dog (brown)... runs!' becomes "a dog brown runs".
    """

    words: int = MOST_WORDS

    label: ClassVar[str] = "blip_captions"

    def __post_init__(self):
        if self.words < 1:
            raise ValueError(f"data: BlipCaptions has words {self.words}, wanted at least 1.")

    def __call__(self, record: Record) -> Caption:
        """Raises RecordError for what is no caption."""
        if not isinstance(record, Caption):
            raise RecordError(record.id, f"it is a {type(record).__name__}, wanted a Caption")
        text = re.sub(r"\s{2,}", " ", MARKS.sub(" ", record.text.lower())).rstrip("\n").strip(" ")
        return dataclasses.replace(record, text=" ".join(text.split(" ")[: self.words]))


def question_of(text: str) -> str:
    """A question as BLIP-2 asks it: lower case, without MARKS, at most MOST_WORDS words.

    Example: 'What, if any - is "it"?' becomes "what, if any - is it?".
    """
    return " ".join(MARKS.sub("", text.lower()).rstrip(" ").split(" ")[:MOST_WORDS])
