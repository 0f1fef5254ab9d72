"""The image of a record and what stands beside it, in each of the forms in which tables and tars have them."""

import dataclasses
from dataclasses import dataclass
import string
from typing import Any

from xgenmm_jax.data.errors import RecordError, shown
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.images import image_bytes

IMG2DATASET = ("jpg", "png", "webp")
"""Fields of img2dataset's images, each named as its format."""


def image_in(raw: Raw, value: Any) -> LazyImage:
    """The image in a field's value: encoded bytes, or the datasets library's {"bytes", "path"}.

    Without bytes the struct names a file, which the storage has beside its records. A value that is an image already
    stays (`SizedShard.without_pixels`).

    Raises ValueError where the image is damaged or missing, or the value is something else.
    Source: docs/reference/data.md#images-in-tables
    """
    if isinstance(value, LazyImage):
        return value
    if isinstance(value, dict) and value.get("bytes") is None and isinstance(value.get("path"), str):
        return raw.image(value["path"])
    return image_from_bytes(image_bytes(value), raw.key, official=True)


@dataclass(frozen=True, kw_only=True)
class OneImage(OneChoice):
    """Base of readers of one image a record.

    image: fields that may hold the encoded image, as bytes or as the datasets library's {"bytes", "path"}; the first
        that is there is read. image_name: field with the path or URL of an image beside the records, read where none of
        `image` is there; "" where there is none.
    """

    image: tuple[str, ...] = IMG2DATASET
    image_name: str = ""

    def __post_init__(self):
        name = type(self).__name__
        if isinstance(self.image, str):  # its letters would be taken for fields
            raise ValueError(f"data: {name} has image={self.image!r}; give a tuple of fields, ({self.image!r},).")
        if not self.image and not self.image_name:
            raise ValueError(f"data: {name} reads no field with an image; give it image= or image_name=.")

    @property
    def image_fields(self) -> tuple[str, ...]:
        """Those of `fields` that lead to the image: one that is the only way to it is needed."""
        only = self.image if len(self.image) == 1 and not self.image_name else ()
        return (*((self.image_name,) if self.image_name else ()), *only)

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(name for name in self.image if name not in self.image_fields)

    def image_of(self, raw: Raw) -> LazyImage:
        """Raises RecordError where there is no image, ValueError where it is damaged or missing."""
        name = next((name for name in self.image if raw.fields.get(name) is not None), None)
        if name is not None:
            return image_in(raw, raw.fields[name])
        if self.image_name:
            return raw.image(raw.text(self.image_name))
        there = ", ".join(map(repr, raw.fields)) or "nothing"
        raise RecordError(raw.key, f"no image: wanted one of {', '.join(self.image)}; it has {there}")


def row_of(raw: Raw) -> Raw:
    """A record with img2dataset's columns as fields, whether it is a row of a table or a sample of a tar.

    A tar's sample has them as the members of its json. Raises RecordError where that is none.
    Source: docs/reference/data.md#img2dataset-output
    """
    if not isinstance(raw.fields.get("json"), bytes):
        return raw
    columns = raw.json("json")
    if not isinstance(columns, dict):
        raise RecordError(raw.key, f"'json' holds {type(columns).__name__}, wanted an object")
    members = {name: value for name, value in raw.fields.items() if name != "json"}
    return dataclasses.replace(raw, fields=columns | members)


def image_fields(field: str, file: str) -> tuple[str, ...]:
    """The fields that give a record's image: `field` holds it, or those in `file` name it, "{image_id:012}.jpg".

    Raises ValueError unless just one of the two is given, or where `file` is no such form of a name.
    """
    if bool(field) == bool(file):
        raise ValueError(f'data: image={field!r} and image_file={file!r}; wanted the one and "" for the other.')
    if field:
        return (field,)
    names = []
    for _, name, _, conversion in _parts(file):
        if name is None:
            continue
        if not name or conversion or not name.replace("_", "").isalnum():
            raise ValueError(f"data: image_file={file!r} has {{{name}}}; wanted a field, '{{image_id:012}}.jpg'.")
        names.append(name)
    if not names:
        raise ValueError(f"data: image_file={file!r} names no field, so all records would have one image; name it.")
    return tuple(dict.fromkeys(names))


def image_of(raw: Raw, field: str, file: str) -> LazyImage:
    """The image of a record, by the two of which `image_fields` tells.

    Raises RecordError where a field is missing or names nothing, ValueError where the image is missing or damaged.
    """
    if field:
        return image_in(raw, raw.value(field))
    name = ""
    for text, of, spec, _ in _parts(file):
        name += text
        if of is not None:
            value = raw.value(of)
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if spec and isinstance(value, str) and value.isascii() and value.isdecimal():
                value, is_number = int(value), True
            if not is_number and (spec or not isinstance(value, str) or not value.strip()):
                raise RecordError(raw.key, f"'{of}' is {shown(value)!r}, which names no image")
            name += format(value, spec)
    return raw.image(name)


def _parts(file: str) -> list[tuple[str, str | None, str, str | None]]:
    """Text, and the field behind it, of each part of a name's form. Raises ValueError where it is none."""
    try:
        return [(text, name, spec or "", conversion) for text, name, spec, conversion in string.Formatter().parse(file)]
    except ValueError as error:
        raise ValueError(f"data: image_file={file!r} is no name with fields in braces ({error}).") from error
