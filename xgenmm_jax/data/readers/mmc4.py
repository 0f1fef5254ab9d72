"""MMC4: web pages as sentences, and images of which each was matched with a sentence.

Source: docs/reference/data.md#mmc4
"""

from collections.abc import Iterator
from dataclasses import dataclass
import functools
from typing import Any, ClassVar, Literal

from xgenmm_jax.data.errors import RecordError, shown
from xgenmm_jax.data.readers.base import list_in
from xgenmm_jax.data.readers.interleaved import Interleaved, OpenImage
from xgenmm_jax.data.records import Document
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True, kw_only=True)
class Mmc4(Interleaved):
    """A `Document` of the sentences in `text_list`, with the images of `image_info` beside the sentences they match.

    side: whether an image stands before its sentence, as open_flamingo trains, or behind it. least_similarity: images
        whose CLIP similarity to their sentence is lower are left out, and not opened; 0.24 is open_flamingo's.

    Images are opened by their `raw_url` (`Raw.image`); the data set has no bytes. Of several images of one sentence the
    order of `image_info` stays.
    """

    side: Literal["before", "after"] = "before"
    least_similarity: float = 0.24

    label: ClassVar[str] = "mmc4"

    def __post_init__(self):
        super().__post_init__()
        if self.side not in ("before", "after"):
            raise ValueError(f"data: Mmc4(side={self.side!r}); wanted 'before' or 'after'.")

    @property
    def fields(self) -> tuple[str, ...]:
        return ("text_list", "image_info")

    def read(self, raw: Raw, choice: int) -> Document:
        """Raises RecordError where an image is of no sentence or no image can be had, LeftOut as `Interleaved`."""
        sentences = list_in(raw, "text_list")
        if strange := [type(one).__name__ for one in sentences if not isinstance(one, str)]:
            raise RecordError(raw.key, f"'text_list' holds {strange[0]}, wanted texts")
        urls: dict[int, list[str]] = {}
        left_out = 0
        for number, info in enumerate(list_in(raw, "image_info")):
            url, sentence, similarity = _image(raw, number, info, len(sentences))
            if similarity >= self.least_similarity:
                urls.setdefault(sentence, []).append(url)
            else:
                left_out += 1
        return self.document(raw, self._parts(raw, sentences, urls), choice, left_out)

    def _parts(self, raw: Raw, sentences: list[str], urls: dict[int, list[str]]) -> Iterator[str | OpenImage]:
        for number, sentence in enumerate(sentences):
            images = [functools.partial(raw.image, url) for url in urls.get(number, [])]
            yield from (*images, sentence) if self.side == "before" else (sentence, *images)


def _image(raw: Raw, number: int, info: Any, sentences: int) -> tuple[str, int, float]:
    """URL, number of its sentence and similarity of an image. Raises RecordError where they are none."""
    if not isinstance(info, dict):
        raise RecordError(raw.key, f"'image_info' has {type(info).__name__} at {number}, wanted an object")
    url, sentence, similarity = (info.get(name) for name in ("raw_url", "matched_text_index", "matched_sim"))
    if not isinstance(url, str):
        raise RecordError(raw.key, f"image {number} has no 'raw_url'; it has {', '.join(map(repr, info)) or 'nothing'}")
    if not isinstance(sentence, int) or not 0 <= sentence < sentences:
        raise RecordError(
            raw.key,
            f"image {number} has the 'matched_text_index' {shown(sentence, 50)}, and there are {sentences} sentences",
        )
    if not isinstance(similarity, int | float):
        raise RecordError(raw.key, f"image {number} has the 'matched_sim' {shown(similarity, 50)}, wanted a number")
    return url, sentence, similarity
