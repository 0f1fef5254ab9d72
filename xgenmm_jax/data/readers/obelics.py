"""OBELICS: web pages as images and texts in their order.

Source: docs/reference/data.md#obelics
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xgenmm_jax.data.errors import RecordError, is_of_a_record
from xgenmm_jax.data.readers.base import OneChoice, list_in
from xgenmm_jax.data.readers.images import image_in
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class Obelics(OneChoice):
    """A `Document` of the lists `images` (URL or null) and `texts` (text or null), one of the two at each position.

    image_bytes: a list of the fetched images, encoded, with null where there is none; where a record has no such list,
        the storage opens images by their URL (`Raw.image`).
    missing: what an image that is missing, or whose header is damaged, costs: itself ("leave_out", counted in
        `Document.dropped`), or the document ("error").

    Sizes are read from the images' own bytes: those in `metadata` are of the page that was crawled.
    """

    image_bytes: str = "image_bytes"
    missing: Literal["leave_out", "error"] = "leave_out"

    label: ClassVar[str] = "obelics"

    def __post_init__(self):
        if self.missing not in ("leave_out", "error"):
            raise ValueError(f"data: Obelics(missing={self.missing!r}); wanted 'leave_out' or 'error'.")

    @property
    def fields(self) -> tuple[str, ...]:
        return ("images", "texts")

    @property
    def optional(self) -> tuple[str, ...]:
        return (self.image_bytes,) if self.image_bytes else ()

    def read(self, raw: Raw, choice: int) -> Document:
        """Raises RecordError where the lists do not fit together, or no image of the document can be had."""
        urls, texts = list_in(raw, "images"), list_in(raw, "texts")
        has_bytes = bool(self.image_bytes) and raw.fields.get(self.image_bytes) is not None
        fetched = list_in(raw, self.image_bytes) if has_bytes else [None] * len(urls)
        _check(raw, urls, texts, fetched if has_bytes else None, self.image_bytes)
        parts: list[str | LazyImage] = []
        errors: list[Exception] = []
        for url, text, value in zip(urls, texts, fetched, strict=True):
            if url is None:
                parts.append(text)
                continue
            try:
                parts.append(self._image(raw, url, value, has_bytes))
            except (ValueError, OSError) as error:
                # A file system that does not answer is no image that is missing.
                if not is_of_a_record(error):
                    raise
                if self.missing == "error":
                    raise RecordError(raw.key, error) from error
                errors.append(error)
        images = sum(isinstance(part, LazyImage) for part in parts)
        if not images and not errors:
            raise RecordError(raw.key, "it names no image; PlainText reads text alone")
        if not images:
            raise RecordError(raw.key, f"none of its {len(errors)} images can be had; the first: {errors[0]}")
        return Document(raw.key, tuple(parts), dropped=len(errors))

    def _image(self, raw: Raw, url: str, value: Any, has_bytes: bool) -> LazyImage:
        if not has_bytes:
            return raw.image(url)
        if value is None:
            raise ValueError(f"'{self.image_bytes}' is null for '{url[:300]}'")
        return image_in(raw, value)


def _check(raw: Raw, urls: list[Any], texts: list[Any], fetched: list[Any] | None, image_bytes: str) -> None:
    """Raises RecordError unless the lists are equally long, with an image or a text at each position."""
    for field, values in (("texts", texts), (image_bytes, fetched)):
        if values is not None and len(values) != len(urls):
            raise RecordError(raw.key, f"{len(urls)} 'images' and {len(values)} '{field}'; wanted lists of one length")
    for number, (url, text) in enumerate(zip(urls, texts, strict=True)):
        if (url is None) == (text is None):
            has = "neither image nor text" if url is None else "an image and a text"
            raise RecordError(raw.key, f"position {number} has {has}; wanted one of the two")
        value, field = (url, "images") if text is None else (text, "texts")
        if not isinstance(value, str):
            raise RecordError(raw.key, f"'{field}' has {type(value).__name__} at position {number}, wanted text")
        if fetched is not None and url is None and fetched[number]:
            raise RecordError(raw.key, f"'{image_bytes}' has an image at position {number}, where a text stands")
