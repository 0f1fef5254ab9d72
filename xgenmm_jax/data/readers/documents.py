"""Documents as two lists, of images and of texts, with one of the two at each position: OBELICS' form and MINT-1T's.

Source: docs/reference/data.md#obelics, docs/reference/data.md#mint-1t
"""

from collections.abc import Iterator
from dataclasses import dataclass
import functools
from typing import Any

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import list_in
from xgenmm_jax.data.readers.images import image_in
from xgenmm_jax.data.readers.interleaved import Interleaved, OpenImage
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True, kw_only=True)
class UrlDocuments(Interleaved):
    """Base of readers of tables whose `images` are URLs (or null), beside `texts` (or null).

    image_bytes: a list of the fetched images, encoded, with null where there is none; where a record has no such list,
        the storage opens images by their URL (`Raw.image`).

    Sizes are read from the images' own bytes: those that tables tell are of the page that was crawled.
    """

    image_bytes: str = "image_bytes"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("images", "texts")

    @property
    def optional(self) -> tuple[str, ...]:
        return (self.image_bytes,) if self.image_bytes else ()

    def read(self, raw: Raw, choice: int) -> Document:
        """Raises RecordError where the lists do not fit together or no image can be had, LeftOut as `Interleaved`."""
        urls, texts = list_in(raw, "images"), list_in(raw, "texts")
        has_bytes = bool(self.image_bytes) and raw.fields.get(self.image_bytes) is not None
        fetched = list_in(raw, self.image_bytes) if has_bytes else None
        check_lists(raw, urls, texts)
        if fetched is not None:
            self._check_fetched(raw, urls, fetched)
        return self.document(raw, self._parts(raw, urls, texts, fetched), choice)

    def _parts(
        self, raw: Raw, urls: list[Any], texts: list[Any], fetched: list[Any] | None
    ) -> Iterator[str | OpenImage]:
        for number, (url, text) in enumerate(zip(urls, texts, strict=True)):
            if url is None:
                yield text
            elif fetched is None:
                yield functools.partial(raw.image, url)
            else:
                yield functools.partial(self._fetched, raw, url, fetched[number])

    def _fetched(self, raw: Raw, url: str, value: Any) -> LazyImage:
        if value is None:
            raise ValueError(f"'{self.image_bytes}' is null for '{url[:300]}'")
        return image_in(raw, value)

    def _check_fetched(self, raw: Raw, urls: list[Any], fetched: list[Any]) -> None:
        if len(fetched) != len(urls):
            raise RecordError(raw.key, _unequal(urls, self.image_bytes, fetched))
        for number, (url, value) in enumerate(zip(urls, fetched, strict=True)):
            if url is None and value:
                raise RecordError(
                    raw.key, f"'{self.image_bytes}' has an image at position {number}, where a text stands"
                )


def check_lists(raw: Raw, images: list[Any], texts: list[Any]) -> None:
    """Raises RecordError unless the lists are equally long, with the name of an image or a text at each position."""
    if len(texts) != len(images):
        raise RecordError(raw.key, _unequal(images, "texts", texts))
    for number, (image, text) in enumerate(zip(images, texts, strict=True)):
        if (image is None) == (text is None):
            has = "neither image nor text" if image is None else "an image and a text"
            raise RecordError(raw.key, f"position {number} has {has}; wanted one of the two")
        value, field = (image, "images") if text is None else (text, "texts")
        if not isinstance(value, str):
            raise RecordError(raw.key, f"'{field}' has {type(value).__name__} at position {number}, wanted text")


def _unequal(images: list[Any], field: str, values: list[Any]) -> str:
    return f"{len(images)} 'images' and {len(values)} '{field}'; wanted lists of one length"
