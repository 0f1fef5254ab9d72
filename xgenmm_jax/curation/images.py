"""Images to be annotated, out of any source: their pixels, the bytes of their files, and what stands beside them."""

from collections.abc import Iterator
from dataclasses import dataclass
import hashlib
from typing import Any, ClassVar, NamedTuple

import PIL.Image

from xgenmm_jax.data.errors import BAD_IMAGE, UNREADABLE, RecordError, is_of_a_record, reason_of
from xgenmm_jax.data.image_files import in_words
from xgenmm_jax.data.images import encoded
from xgenmm_jax.data.readers.base import AllNeeded, reading
from xgenmm_jax.data.readers.images import image_in, row_of
from xgenmm_jax.data.records import Caption, LazyImage, Record, images_of
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.base import Raw, Shard
from xgenmm_jax.data.storage.tars import IMAGE_SUFFIXES

NO_IMAGE = "a record without an image"
TEXTS = ("txt", "caption", "text")
COLUMNS = ("json", "uid", "url", "key", "face_bboxes")
"""Fields beside an image that are passed on as they are; "json" holds those of a tar's sample."""


@dataclass(frozen=True)
class Images(AllNeeded):
    """An image alone, with its alt text where it has one: what needs no further reader.

    image: fields of which the first that is there holds the image, as bytes, as the datasets library's {"bytes",
        "path"} or as the name of a file. "data" is the file itself (`Folder`).
    text: fields of which the first that is there and not empty is the alt text.
    """

    image: tuple[str, ...] = (*IMAGE_SUFFIXES, "data", "image")
    text: tuple[str, ...] = TEXTS

    label: ClassVar[str] = "images"

    @property
    def fields(self) -> tuple[str, ...]:
        return ()

    @property
    def optional(self) -> tuple[str, ...]:
        return (*self.image, "url", *self.text, "json")

    def choices(self, raw: Raw) -> int:
        return 1

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where there is no image, ValueError where it is damaged or missing."""
        row = row_of(raw)
        return Caption(raw.key, self._image(row), alt_text(row, self.text))

    def _image(self, row: Raw) -> LazyImage:
        name = next((name for name in self.image if row.fields.get(name) is not None), None)
        if name is not None:
            value = row.fields[name]
            return row.image(value) if isinstance(value, str) else image_in(row, value)
        if isinstance(row.fields.get("url"), str):
            return row.image(row.fields["url"])
        there = ", ".join(map(repr, row.fields)) or "nothing"
        raise RecordError(row.key, f"no image: wanted one of {', '.join(self.image)}; it has {there}")


def alt_text(row: Raw, fields: tuple[str, ...] = TEXTS) -> str:
    """The first text of these fields that is not empty; "" where there is none."""
    for name in fields:
        value = row.fields.get(name)
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str) and text.strip():
            return text.strip()
    return ""


class SourceImage(NamedTuple):
    """An image with its pixels.

    key: of its record in the source. ordinal: its number among the images of its shard, those counted that cannot be
    read. record: as the source's reader gives it. pixels: RGB, at full size. data: its file. columns: what stands
    beside it, by name.
    """

    key: str
    shard: int
    ordinal: int
    record: Record
    pixels: PIL.Image.Image
    data: bytes
    columns: dict[str, Any]

    @property
    def uid(self) -> str:
        """32 hexadecimal digits: the source's own, or those of the file's bytes."""
        uid = self.columns.get("uid")
        return uid if isinstance(uid, str) and uid else self.digest

    @property
    def digest(self) -> str:
        """Of the file's bytes, 32 hexadecimal digits."""
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()

    @property
    def url(self) -> str:
        """The source's own, or the path of the record in it."""
        url = self.columns.get("url")
        return url if isinstance(url, str) and url else str(self.columns.get("path", self.key))

    @property
    def number(self) -> str:
        """The key of the released tables: twelve digits, the source's own or those of shard and image."""
        key = self.columns.get("key")
        return key if isinstance(key, str) and key else f"{self.shard:06}{self.ordinal:06}"

    @property
    def alt_text(self) -> str:
        """The text of a caption, as its reader gives it; "" where the record is none."""
        return self.record.text if isinstance(self.record, Caption) else ""


class Unread(NamedTuple):
    """An image that cannot be had. reason: one of few."""

    record: str
    reason: str
    detail: str


class Unopened(NamedTuple):
    """An image whose pixels are not read yet."""

    key: str
    record: Record
    lazy: LazyImage
    columns: dict[str, Any]


def opened_shard(source: ShardedSource, path: str, extra: tuple[str, ...] = ()) -> tuple[Shard, list[Unread]]:
    """A shard of a source for reading, and what its storage refuses. extra: further fields to pass on.

    Raises SourceError where the shard cannot be read.
    """
    located = source.storage.locate(path)
    refused = [Unread(one.name, one.reason, "left out of the shard") for one in located.refused]
    optional = tuple(dict.fromkeys((*source.reader.optional, *COLUMNS, "path", *extra)))
    optional = tuple(name for name in optional if name not in source.reader.fields)
    return source.storage.open(path, located, source.reader.fields, optional), refused


def unopened(source: ShardedSource, shard: Shard, name: str) -> Iterator[Unopened | Unread]:
    """The images of a shard in their order, a record's one after the other. name: of the shard.

    Raises SourceError where the shard cannot be read.
    """
    for number in range(len(shard)):
        key = f"{name}[{number}]"
        try:
            raw = shard.read(number)
            key = raw.key
            with reading(source.reader, raw):
                record = source.reader.read(raw, 0)
            row = row_of(raw)
        except Exception as error:
            if not is_of_a_record(error):
                raise
            # A reader wraps what is wrong with a record, and lets pass what is wrong with its image's header.
            otherwise = UNREADABLE if isinstance(error, RecordError) else BAD_IMAGE
            yield Unread(key, reason_of(error, otherwise), in_words(error, 300))
            continue
        images = images_of(record)
        if not images:
            yield Unread(raw.key, NO_IMAGE, f"it is a {type(record).__name__} of text alone")
        columns = {name: value for name, value in row.fields.items() if not isinstance(value, bytes | LazyImage)}
        for which, image in enumerate(images):
            yield Unopened(raw.key if which == 0 else f"{raw.key}#{which + 1}", record, image, columns)


def read(image: Unopened, shard: int, ordinal: int) -> SourceImage | Unread:
    """The image with its pixels."""
    try:
        pixels, data = image.lazy.load(), encoded(image.lazy)
    except Exception as error:
        if not is_of_a_record(error):
            raise
        return Unread(image.key, BAD_IMAGE, in_words(error, 300))
    return SourceImage(image.key, shard, ordinal, image.record, pixels, data, image.columns)
