"""What sources give: records of text and lazily decoded images; and samples, their tokenised form."""

from collections.abc import Callable
import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Bool, Float32, Int32
import numpy as np
import PIL.Image

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class LazyImage:
    """An image whose size is known and whose pixels are decoded on demand.

    load: gives an RGB image of exactly `size_px`; called in loader threads and workers.
    load_scaled: gives an RGB image, decoded at 1/2, 1/4 or 1/8 of `size_px` where neither side becomes shorter than so
        many pixels and the format can be, else as `load` does; None: as `load` does, always.
    """

    size_px: tuple[int, int]  # (width, height)
    load: Callable[[], PIL.Image.Image] = field(repr=False)
    load_scaled: Callable[[int], PIL.Image.Image] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Crops:
    """An image that is cut and normalised already: the global view, then the grid's crops row by row.

    size_px: (width, height) of the image before it was cut; its grid and padding follow from it.
    """

    pixels: Float32[np.ndarray, "n S S 3"] = field(repr=False)
    size_px: tuple[int, int]


@dataclass(frozen=True)
class Caption:
    """An image and what is in it.

    lost: why each further image of the published record, of which it would have been a choice, is left out.
    whole: what `image` is a drawn part of, by which captions of one image are told; None: it is whole itself.
    """

    id: str
    image: LazyImage
    text: str
    lost: tuple[str, ...] = ()
    whole: LazyImage | None = None


@dataclass(frozen=True)
class Document:
    """Images and text in any order, as on a web page. Without images: plain text.

    separator: between the end of an image's text and the next image; a newline in few-shot prompts.
    dropped: images of the published document that are not among the parts: that could not be had, or that its reader's
    options leave out.
    """

    id: str
    parts: tuple[str | LazyImage, ...]
    separator: Literal["", "\n"] = ""
    dropped: int = 0


@dataclass(frozen=True)
class Turn:
    role: Role
    text: str  # user text holds one "<image>" per image of the conversation, in order


@dataclass(frozen=True)
class Conversation:
    """Questions and answers about zero or more images."""

    id: str
    images: tuple[LazyImage, ...]
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Preference:
    """A prompt with a better and a worse answer. `turns` ends with a user turn."""

    id: str
    images: tuple[LazyImage, ...]
    turns: tuple[Turn, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class TextToImage:
    """What a user asks to be drawn, and an image of it.

    prompt: the user's turn, instruction and caption. queries: vectors of the model that carry its meaning out; they
    stand behind the vector that begins an image, where the assistant would answer.
    """

    id: str
    prompt: str
    image: LazyImage
    queries: int


Record = Caption | Document | Conversation | Preference | TextToImage


@dataclass(frozen=True)
class Sample:
    """A tokenised record: one `<image>` id per image, not yet expanded.

    A preference pair is one Sample: `token_ids` is prompt and chosen answer, `rejected_ids` the same
    prompt and the rejected answer; the loss masks cover the answers.

    source: name of the source that gave the record, by which what cannot be decoded later is counted.
    query: of a text to draw, what stands at each position in place of a token (`DrawingBatch.query`).
    target: what it is to become.
    """

    id: str
    token_ids: Int32[np.ndarray, " n"]
    loss_mask: Bool[np.ndarray, " n"]
    images: tuple[LazyImage, ...]
    rejected_ids: Int32[np.ndarray, " m"] | None = None
    rejected_mask: Bool[np.ndarray, " m"] | None = None
    source: str = ""
    query: Int32[np.ndarray, " n"] | None = None
    target: LazyImage | None = None


def images_of(record: Record) -> tuple[LazyImage, ...]:
    """A record's images, in order; also the one that a text is to become."""
    if isinstance(record, Caption | TextToImage):
        return (record.image,)
    if isinstance(record, Document):
        return tuple(part for part in record.parts if isinstance(part, LazyImage))
    return record.images


def with_images(record: Record, new: tuple[LazyImage, ...]) -> Record:
    """The record with its images replaced, in order."""
    if isinstance(record, Caption | TextToImage):
        return dataclasses.replace(record, image=new[0])
    if isinstance(record, Document):
        rest = iter(new)
        parts = tuple(next(rest) if isinstance(part, LazyImage) else part for part in record.parts)
        return dataclasses.replace(record, parts=parts)
    return dataclasses.replace(record, images=new)
