"""The image that a record holds or names, in each of the forms in which tables, tars and lists of JSON have it."""

import string
from typing import Any

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.images import image_bytes


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
                raise RecordError(raw.key, f"'{of}' is {str(value)[:100]!r}, which names no image")
            name += format(value, spec)
    return raw.image(name)


def _parts(file: str) -> list[tuple[str, str | None, str, str | None]]:
    """Text, and the field behind it, of each part of a name's form. Raises ValueError where it is none."""
    try:
        return [(text, name, spec or "", conversion) for text, name, spec, conversion in string.Formatter().parse(file)]
    except ValueError as error:
        raise ValueError(f"data: image_file={file!r} is no name with fields in braces ({error}).") from error
