"""Images and their captions, one image a record: tars and tables of img2dataset, others' tables, TFDS' folders.

Source: docs/reference/data.md#img2dataset-output, docs/reference/data.md#images-in-tables,
docs/reference/data.md#builders-of-tensorflow-datasets
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import texts_in
from xgenmm_jax.data.readers.images import OneImage
from xgenmm_jax.data.records import Caption
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class ImageCaptions(OneImage):
    """A `Caption` of the image in one field and the text in another.

    caption: of a tar's sample "txt", of img2dataset's tables "caption". other_captions: fields with further captions.
        Each of these fields holds a text or a list of texts; one of all of them is drawn each time the record is, empty
        ones and nulls left out.

    The paper's sets: `caption_sets.py`. Of tensorflow-datasets, coco_captions is
    `ImageCaptions(image=("image",), caption="captions/text")`; big_vision's builders have "captions" (coco35l), "texts"
    (textcaps, nocaps), "summary" (screen2words).
    """

    caption: str = "txt"
    other_captions: tuple[str, ...] = ()

    label: ClassVar[str] = "image_captions"

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.other_captions, str):
            text = repr(self.other_captions)
            raise ValueError(f"data: ImageCaptions has other_captions={text}; give a tuple of fields, ({text},).")

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.caption, *self.other_captions, *self.image_fields)

    def choices(self, raw: Raw) -> int:
        """Captions of the record; 1 where it has none, which `read` tells."""
        try:
            return len(self._texts(raw))
        except RecordError:
            return 1

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where there is no image or no caption."""
        text = self._texts(raw)[choice]
        return Caption(raw.key, self.image_of(raw), text)

    def _texts(self, raw: Raw) -> list[str]:
        """The captions to choose from. Raises RecordError where there is none."""
        named = (self.caption, *self.other_captions)
        texts = [text for name in named for text in texts_in(raw, name)]
        if not texts:
            empty = " and ".join(f"'{name}'" for name in named)
            raise RecordError(raw.key, f"{empty} {'is' if len(named) == 1 else 'are'} empty")
        return texts
