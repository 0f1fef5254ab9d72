"""What a storage is: shards by name, and the records of a shard by number, without knowing what they mean.

A storage walks a shard once to learn where its records lie (`locate`); what it finds is kept in the index, so that
later a record is one read. A reader (`data/readers/`) makes a record of the project out of a `Raw`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import json
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Integer
import numpy as np

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.files import parse_json


def no_images(name: str) -> LazyImage:
    """`Raw.image` of a storage that has no images beside its records."""
    raise ValueError(
        f"the record names the image '{name[:300]}', and the storage has no folder of images; give it one."
    )


@dataclass(frozen=True)
class Raw:
    """One published record, as it is stored.

    key: what the record is called, unique in its source: "00012.tar/000120034". fields: values by name, bytes of the
    members of a tar by their suffix ("jpg", "txt", "json"), or a table's Python values by column.
    image: opens an image that lies beside the records, by the name that the record gives; its size is known, its
    pixels are read on `load`. Raises ValueError where it is missing, damaged or outside of the storage's folder.
    """

    key: str
    fields: Mapping[str, Any]
    image: Callable[[str], LazyImage] = field(default=no_images, repr=False)

    def text(self, name: str) -> str:
        """A text field. Raises RecordError where it is missing or no text."""
        value = self.value(name)
        if isinstance(value, bytes):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise RecordError(self.key, f"'{name}' is no UTF-8 text ({error.reason})") from error
        if not isinstance(value, str):
            raise RecordError(self.key, f"'{name}' is {type(value).__name__}, wanted text")
        return value

    def data(self, name: str) -> bytes:
        """A field of bytes. Raises RecordError where it is missing or has none."""
        value = self.value(name)
        if not isinstance(value, bytes):
            raise RecordError(self.key, f"'{name}' is {type(value).__name__}, wanted bytes")
        return value

    def json(self, name: str) -> Any:
        """What the JSON text of a field says. Raises RecordError where it is missing or not JSON."""
        try:
            return parse_json(self.value(name))
        except (ValueError, TypeError, json.JSONDecodeError) as error:
            raise RecordError(self.key, f"'{name}' is not JSON ({error})") from error

    def value(self, name: str) -> Any:
        """A field as it is. Raises RecordError where it is missing."""
        try:
            return self.fields[name]
        except KeyError:
            there = ", ".join(map(repr, self.fields)) or "nothing"
            raise RecordError(self.key, f"no '{name}'; it has {there}") from None


class Refused(NamedTuple):
    """Something in a shard that is not read: a member that is a link, a name that leaves its folder, a torn line."""

    name: str
    reason: str
    """One of few, by which they are counted."""


class Located(NamedTuple):
    """Where the records of a shard lie.

    arrays: what the storage wants back when it opens the shard, each with one row a record; tars and JSON have
    "offset" and "size" in bytes. Empty where the shard's own format has random access.
    """

    records: int
    arrays: dict[str, Integer[np.ndarray, "records ..."]]
    refused: tuple[Refused, ...] = ()


@runtime_checkable
class Shard(Protocol):
    """An open shard, any record at any time, from any thread."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Raw:
        """Raises ValueError (`RecordError`) where the record is damaged, SourceError where the shard is."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class SizedShard(Shard, Protocol):
    """A shard that knows the sizes of its images without reading them."""

    def without_pixels(self, fields: tuple[str, ...]) -> Shard:
        """The same records for measuring: fields that hold an image are a `LazyImage` that cannot be loaded.

        Raises SourceError where it does not know one of the fields.
        """
        ...


@runtime_checkable
class Storage(Protocol):
    """A frozen dataclass that names files. PATH_FIELDS of it are the fields that say where they lie."""

    def shards(self) -> tuple[str, ...]:
        """Paths or URLs of the shards, in the order of their names. Raises SourceError where there is none."""
        ...

    def size(self, shard: str) -> int:
        """Bytes of a shard, by which a changed one is noticed. Raises SourceError where it is gone."""
        ...

    def locate(self, shard: str) -> Located:
        """Walks a shard. Raises SourceError where it is cut off or of another format."""
        ...

    def open(self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()) -> Shard:
        """The shard for reading. fields: those that are read of a record; optional: read where they are there.

        Both empty means all. Raises SourceError where one of `fields` is in no record of the shard, with those that
        are there.
        """
        ...
