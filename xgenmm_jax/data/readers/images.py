"""The image that a field of a record holds, in each of the forms in which tables and tars have it."""

from typing import Any

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
