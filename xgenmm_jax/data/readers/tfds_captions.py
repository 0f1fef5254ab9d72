"""Images with several captions each, as tensorflow-datasets stores COCO's; a draw takes one of them.

Source: docs/reference/data.md#builders-of-tensorflow-datasets
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.base import texts_of
from xgenmm_jax.data.records import Caption
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class TfdsCaptions:
    """A `Caption` with one of a record's texts.

    captions: a list of texts or a single one: "captions/text" of coco_captions; of big_vision's builders "captions"
        (coco35l), "texts" (textcaps, nocaps), "summary" (screen2words). Blank ones do not count.
    """

    image: str = "image"
    captions: str = "captions/text"

    label: ClassVar[str] = "tfds_captions"

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.image, self.captions)

    @property
    def optional(self) -> tuple[str, ...]:
        return ()

    def choices(self, raw: Raw) -> int:
        """Captions of the record; 1 where it has none, which `read` tells."""
        try:
            return len(texts_of(raw, self.captions))
        except RecordError:
            return 1

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where there is no caption, ValueError where the image is none."""
        text = texts_of(raw, self.captions)[choice]
        return Caption(raw.key, image_from_bytes(raw.data(self.image), raw.key, official=True), text)
