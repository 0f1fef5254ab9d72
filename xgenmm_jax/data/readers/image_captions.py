"""Images and their captions, one of each a record: tars and Parquet files as img2dataset writes them.

Source: docs/reference/data.md#datacomp-1b
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class ImageCaptions(OneChoice):
    """A `Caption` of the image in one field and the text in another.

    image: fields that may hold the encoded image, the first that is there is read. caption: of a tar's sample "txt",
    of img2dataset's tables "caption".
    """

    image: tuple[str, ...] = ("jpg", "png", "webp")
    caption: str = "txt"

    label: ClassVar[str] = "image_captions"

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.caption,)

    @property
    def optional(self) -> tuple[str, ...]:
        return self.image

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where there is no image or no caption."""
        text = raw.text(self.caption)
        if not text.strip():
            raise RecordError(raw.key, f"'{self.caption}' is empty")
        return Caption(raw.key, self._image(raw), text)

    def _image(self, raw: Raw) -> LazyImage:
        name = next((name for name in self.image if raw.fields.get(name) is not None), None)
        if name is None:
            there = ", ".join(map(repr, raw.fields)) or "nothing"
            raise RecordError(raw.key, f"no image: wanted one of {', '.join(self.image)}; it has {there}")
        return image_from_bytes(raw.data(name), raw.key, official=True)
