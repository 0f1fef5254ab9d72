"""Records in array_record files: the container of data that was prepared once and is read at random.

A record is a length (8 bytes, little endian), a JSON text, and its images' encoded bytes (JPEG, PNG, ...) one after
the other. Images' sizes stand in the JSON, so that measuring a record decodes nothing. Where a record has several texts
to choose from, all of them stand in the JSON ("choices"), each with the numbers of its images.
"""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import functools
import glob
import json
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np

from xgenmm_jax.data import source_paths
from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.images import image_from_bytes, load_official
from xgenmm_jax.data.records import Caption, Conversation, Document, LazyImage, Preference, Record, Role, Turn
from xgenmm_jax.data.source import Records
from xgenmm_jax.data.storage import array_record
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.files import parse_json, without_surrogates


def write_records(path: str | Path, records: Iterable[tuple[Record, list[bytes]]]) -> int:
    """Writes records, each with its images' encoded bytes in order; gives their number. The file appears whole.

    It is noted in `shards.json` beside it, which several writers of one folder may do at the same time.
    """
    count = array_record.write_blobs(path, (encode(record, blobs) for record, blobs in records))
    array_record.note(path, count)
    return count


def encode(record: Record, blobs: list[bytes]) -> bytes:
    """A record as bytes; `blobs` are its images, encoded."""
    return _joined({"id": record.id, **_content(record)}, blobs, record.id)


def encode_choices(choices: Sequence[tuple[Record, list[bytes]]]) -> bytes:
    """A record that has several texts to choose from, each as a record of its own with its images' encoded bytes.

    What the choices have in common is stored once: images by their bytes. One choice alone is as `encode` writes it.
    """
    if len(choices) == 1:
        return encode(*choices[0])
    numbers: dict[bytes, int] = {}
    header: dict[str, Any] = {"id": choices[0][0].id, "choices": []}
    for record, blobs in choices:
        images = [numbers.setdefault(blob, len(numbers)) for blob in blobs]
        header["choices"].append({"id": record.id, **_content(record), "images": images})
    return _joined(header, list(numbers), choices[0][0].id)


def _joined(header: dict[str, Any], blobs: list[bytes], name: str) -> bytes:
    sizes = [image_from_bytes(blob, name, official=True).size_px for blob in blobs]
    header = header | {"sizes_px": sizes, "bytes": [len(blob) for blob in blobs]}
    text = without_surrogates(json.dumps(header, ensure_ascii=False)).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(blobs)


def _content(record: Record) -> dict[str, Any]:
    """A record without its name and its images."""
    header: dict[str, Any] = {"kind": type(record).__name__}
    if isinstance(record, Caption):
        header["text"] = record.text
    elif isinstance(record, Document):
        header["parts"] = [None if isinstance(part, LazyImage) else part for part in record.parts]
        header["separator"] = record.separator
        if record.dropped:
            header["dropped"] = record.dropped
    else:
        header["turns"] = [[turn.role, turn.text] for turn in record.turns]
        if isinstance(record, Preference):
            header |= {"chosen": record.chosen, "rejected": record.rejected}
    return header


def choices_in(data: bytes) -> int:
    """How many texts a record has to choose from; 1 where it is damaged, which `decode` tells."""
    try:
        choices = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("choices")
    except (ValueError, AttributeError):
        return 1
    return len(choices) if isinstance(choices, list) and choices else 1


def decode(data: bytes, name: str = "record", choice: int = 0) -> Record:
    """The record of `encode`, or this one of the choices of `encode_choices`; its images decode on `load`.

    Raises RecordError where the bytes are not such a record. name: what it is called until its id is known.
    """
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = parse_json(data[8:start])
        name = str(header["id"])
        images = []
        for size_px, length in zip(header["sizes_px"], header["bytes"], strict=True):
            width, height = size_px
            if not (min(width, height) > 0 and 0 <= length <= len(data) - start):
                raise ValueError(f"an image of {width} x {height} pixels and {length} bytes")
            blob = data[start : start + length]
            load = functools.partial(load_official, blob, name)
            images.append(LazyImage((width, height), load, functools.partial(_load_scaled, blob, name)))
            start += length
        if "choices" in header:
            header = header["choices"][choice]
            images = [images[_natural(number)] for number in header["images"]]
        return _record(header, tuple(images))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        cause = f"is cut or was not written by `write_records` ({type(error).__name__}: {error})"
        raise RecordError(name, cause) from error


def _record(header: dict[str, Any], images: tuple[LazyImage, ...]) -> Record:
    id_, kind = _text(header["id"]), header["kind"]
    if kind == "Caption":
        [image] = images
        return Caption(id_, image, _text(header["text"]))
    if kind == "Document":
        rest = list(images)[::-1]
        parts = tuple(rest.pop() if part is None else _text(part) for part in header["parts"])
        return Document(id_, parts, header["separator"], _natural(header.get("dropped", 0)))
    turns = tuple(Turn(_role(role), _text(text)) for role, text in header["turns"])
    if kind == "Conversation":
        return Conversation(id_, images, turns)
    if kind != "Preference":
        raise ValueError(f"kind {kind!r}")
    return Preference(id_, images, turns, _text(header["chosen"]), _text(header["rejected"]))


def _role(value: Any) -> Role:
    if value not in get_args(Role):
        raise ValueError(f"role {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number from 0 on")
    return value


def _load_scaled(blob: bytes, name: str, least_px: int):
    return image_from_bytes(blob, name, official=True).load_scaled(least_px)


@dataclass(frozen=True)
class ProjectRecords:
    """What `write_records` and `xgenmm data pack` write: records of every kind, with their images."""

    label: ClassVar[str] = "records"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("data",)

    @property
    def optional(self) -> tuple[str, ...]:
        return ()

    def choices(self, raw: Raw) -> int:
        return choices_in(raw.data("data"))

    def read(self, raw: Raw, choice: int) -> Record:
        return decode(raw.data("data"), raw.key, choice)


@dataclass(frozen=True)
class RecordFiles:
    """Records in our own container: array_record files that match a pattern, in sorted order.

    pattern: `~` is the home folder; a part of it that is there as written, a folder "a[b]", is read so.
    """

    pattern: str

    PATH_FIELDS = ("pattern",)
    """Fields that say where files lie."""

    def open(self) -> Records:
        return RecordReader(self.pattern)

    def files(self) -> list[Path]:
        return [Path(path) for path in sorted(glob.glob(source_paths.literal_first(self.pattern)))]


class RecordReader:
    """The records of all files that match a pattern.

    Raises SourceError where none does, or one is not what was written (`array_record.open_shards`).
    """

    def __init__(self, pattern: str):
        self.name = pattern
        self._files = array_record.open_shards(pattern)
        self._ends = np.cumsum([len(file) for file in self._files]).tolist()
        if not len(self):
            raise SourceError(f"data: the {len(self._files)} files of '{pattern}' hold no record; write them again.")

    def __len__(self) -> int:
        return self._ends[-1]

    def record(self, index: int, rng: np.random.Generator) -> Record:
        number = bisect.bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        name = f"record {index} of '{self.name}'"
        try:
            data = self._files[number][index - first]
        except SourceError:
            raise
        except ValueError as error:
            raise RecordError(name, error) from error
        count = choices_in(data)
        return decode(data, name, int(rng.integers(count)) if count > 1 else 0)
