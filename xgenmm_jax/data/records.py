"""What sources give: records of text and lazily decoded pictures; and samples, their tokenised form."""

from collections.abc import Callable
import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Bool, Float32, Int32
import numpy as np
import PIL.Image

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Picture:
    """A picture whose size is known and whose pixels are decoded on demand.

    load: gives an RGB image of exactly `size_px`; called in loader threads and workers.
    """

    size_px: tuple[int, int]  # (width, height)
    load: Callable[[], PIL.Image.Image] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Crops:
    """A picture that is cut and normalised already: the global view, then the grid's crops row by row.

    size_px: (width, height) of the picture before it was cut; its grid and padding follow from it.
    """

    pixels: Float32[np.ndarray, "n S S 3"] = field(repr=False)
    size_px: tuple[int, int]


@dataclass(frozen=True)
class Caption:
    """A picture and what is in it."""

    id: str
    picture: Picture
    text: str


@dataclass(frozen=True)
class Document:
    """Pictures and text in any order, as on a web page. Without pictures: plain text.

    separator: between the end of a picture's text and the next picture; a newline in few-shot prompts.
    """

    id: str
    parts: tuple[str | Picture, ...]
    separator: Literal["", "\n"] = ""


@dataclass(frozen=True)
class Turn:
    role: Role
    text: str  # user text holds one "<image>" per picture of the conversation, in order


@dataclass(frozen=True)
class Conversation:
    """Questions and answers about zero or more pictures."""

    id: str
    pictures: tuple[Picture, ...]
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Preference:
    """A prompt with a better and a worse answer. `turns` ends with a user turn."""

    id: str
    pictures: tuple[Picture, ...]
    turns: tuple[Turn, ...]
    chosen: str
    rejected: str


Record = Caption | Document | Conversation | Preference


@dataclass(frozen=True)
class Sample:
    """A tokenised record: one `<image>` id per picture, not yet expanded.

    A preference pair is one Sample: `token_ids` is prompt and chosen answer, `rejected_ids` the same
    prompt and the rejected answer; the loss masks cover the answers.

    source: name of the source that gave the record, by which what cannot be decoded later is counted.
    """

    id: str
    token_ids: Int32[np.ndarray, " n"]
    loss_mask: Bool[np.ndarray, " n"]
    pictures: tuple[Picture, ...]
    rejected_ids: Int32[np.ndarray, " m"] | None = None
    rejected_mask: Bool[np.ndarray, " m"] | None = None
    source: str = ""


def pictures_of(record: Record) -> tuple[Picture, ...]:
    """A record's pictures, in order."""
    if isinstance(record, Caption):
        return (record.picture,)
    if isinstance(record, Document):
        return tuple(part for part in record.parts if isinstance(part, Picture))
    return record.pictures


def with_pictures(record: Record, new: tuple[Picture, ...]) -> Record:
    """The record with its pictures replaced, in order."""
    if isinstance(record, Caption):
        return dataclasses.replace(record, picture=new[0])
    if isinstance(record, Document):
        rest = iter(new)
        parts = tuple(next(rest) if isinstance(part, Picture) else part for part in record.parts)
        return dataclasses.replace(record, parts=parts)
    return dataclasses.replace(record, pictures=new)
