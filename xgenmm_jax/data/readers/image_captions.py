"""Images and their captions, one image a record: tars and tables of img2dataset, others' tables, TFDS' folders.

Source: docs/reference/data.md#img2dataset-output, docs/reference/data.md#images-in-tables,
docs/reference/data.md#builders-of-tensorflow-datasets
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import texts_in
from xgenmm_jax.data.readers.images import image_in
from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class ImageCaptions:
    """A `Caption` of the image in one field and the text in another.

    image: fields that may hold the encoded image, as bytes or as the datasets library's {"bytes", "path"}; the first
        that is there is read. image_name: field with the path or URL of an image beside the records, read where none of
        `image` is there; "" where there is none.
    caption: of a tar's sample "txt", of img2dataset's tables "caption". other_captions: fields with further captions.
        Each of these fields holds a text or a list of texts; one of all of them is drawn each time the record is, empty
        ones and nulls left out.

    KALE, its images in a folder: `Parquet(pattern, images=folder)` and
    `ImageCaptions(image=(), image_name="url", caption="caption", other_captions=("cogvlm_caption",))`.
    coco_captions of tensorflow-datasets: `ImageCaptions(image=("image",), caption="captions/text")`; big_vision's
    builders have "captions" (coco35l), "texts" (textcaps, nocaps), "summary" (screen2words).
    """

    image: tuple[str, ...] = ("jpg", "png", "webp")
    caption: str = "txt"
    image_name: str = ""
    other_captions: tuple[str, ...] = ()

    label: ClassVar[str] = "image_captions"

    def __post_init__(self):
        if not self.image and not self.image_name:
            raise ValueError("data: ImageCaptions reads no field with an image; give it image= or image_name=.")

    @property
    def fields(self) -> tuple[str, ...]:
        names = (self.image_name,) if self.image_name else ()
        # One that is the only way to an image is needed; of several a tar or table has one.
        only = self.image if len(self.image) == 1 and not names else ()
        return (self.caption, *self.other_captions, *names, *only)

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(name for name in self.image if name not in self.fields)

    def choices(self, raw: Raw) -> int:
        """Captions of the record; 1 where it has none, which `read` tells."""
        try:
            return len(self._texts(raw))
        except RecordError:
            return 1

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where there is no image or no caption."""
        text = self._texts(raw)[choice]
        return Caption(raw.key, self._image(raw), text)

    def _texts(self, raw: Raw) -> list[str]:
        """The captions to choose from. Raises RecordError where there is none."""
        named = (self.caption, *self.other_captions)
        texts = [text for name in named for text in texts_in(raw, name)]
        if not texts:
            empty = " and ".join(f"'{name}'" for name in named)
            raise RecordError(raw.key, f"{empty} {'is' if len(named) == 1 else 'are'} empty")
        return texts

    def _image(self, raw: Raw) -> LazyImage:
        name = next((name for name in self.image if raw.fields.get(name) is not None), None)
        if name is not None:
            return image_in(raw, raw.fields[name])
        if self.image_name:
            return raw.image(raw.text(self.image_name))
        there = ", ".join(map(repr, raw.fields)) or "nothing"
        raise RecordError(raw.key, f"no image: wanted one of {', '.join(self.image)}; it has {there}")
