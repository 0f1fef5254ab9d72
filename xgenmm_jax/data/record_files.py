"""Records in array_record files: the container of data that was prepared once and is read at random.

A record is a length (8 bytes, little endian), a JSON text, and its pictures' encoded bytes (JPEG, PNG, ...) one after
the other. Pictures' sizes stand in the JSON, so that measuring a record decodes nothing.
"""

import bisect
from collections.abc import Iterable
import functools
import glob
import json
import os
from pathlib import Path
import threading
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
import numpy as np

from xgenmm_jax.data import pictures
from xgenmm_jax.data.records import Caption, Conversation, Document, Picture, Preference, Record, Turn

# One record a group: reading one decompresses no neighbours. Pictures are compressed already.
WRITER_OPTIONS = "group_size:1,uncompressed"


def write_records(path: str | Path, records: Iterable[tuple[Record, list[bytes]]]) -> int:
    """Writes records, each with its pictures' encoded bytes in order; gives their number. The file appears whole."""
    return write_blobs(path, (encode(record, blobs) for record, blobs in records))


def write_blobs(path: str | Path, blobs: Iterable[bytes]) -> int:
    """An array_record file of byte strings, renamed into place when it is complete."""
    beside = Path(f"{path}.{os.getpid()}-{threading.get_ident()}.part")
    writer = ArrayRecordWriter(str(beside), WRITER_OPTIONS)
    count = 0
    try:
        for blob in blobs:
            writer.write(blob)
            count += 1
        writer.close()
        os.replace(beside, path)
    finally:
        if writer.is_open():
            writer.close()
        beside.unlink(missing_ok=True)
    return count


class BlobReader:
    """Random access to one array_record file; any thread may read."""

    def __init__(self, path: str | Path):
        self._path = path
        self._lock = threading.Lock()
        try:
            self._reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
            self._count = self._reader.num_records()
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(f"data: '{path}' is not a whole array_record file ({error}); write it again.") from error

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        with self._lock:
            return self._reader.read([index])[0]


def encode(record: Record, blobs: list[bytes]) -> bytes:
    """A record as bytes; `blobs` are its pictures, encoded."""
    sizes = [pictures.picture_from_bytes(blob, record.id, official=True).size_px for blob in blobs]
    header = {"id": record.id, "kind": type(record).__name__, "sizes_px": sizes, "bytes": [len(blob) for blob in blobs]}
    if isinstance(record, Caption):
        header["text"] = record.text
    elif isinstance(record, Document):
        header["parts"] = [None if isinstance(part, Picture) else part for part in record.parts]
        header["separator"] = record.separator
    else:
        header["turns"] = [[turn.role, turn.text] for turn in record.turns]
        if isinstance(record, Preference):
            header |= {"chosen": record.chosen, "rejected": record.rejected}
    text = json.dumps(header, ensure_ascii=False).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(blobs)


def decode(data: bytes) -> Record:
    """The record of `encode`; its pictures decode on `load`."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    images = []
    for size_px, length in zip(header["sizes_px"], header["bytes"], strict=True):
        load = functools.partial(_load, data[start : start + length], header["id"])
        images.append(Picture(tuple(size_px), load))
        start += length
    return _record(header, tuple(images))


def _record(header: dict[str, Any], images: tuple[Picture, ...]) -> Record:
    id_, kind = header["id"], header["kind"]
    if kind == "Caption":
        return Caption(id_, images[0], header["text"])
    if kind == "Document":
        rest = iter(images)
        parts = tuple(next(rest) if part is None else part for part in header["parts"])
        return Document(id_, parts, header["separator"])
    turns = tuple(Turn(role, text) for role, text in header["turns"])
    if kind == "Conversation":
        return Conversation(id_, images, turns)
    return Preference(id_, images, turns, header["chosen"], header["rejected"])


def _load(blob: bytes, name: str):
    return pictures.picture_from_bytes(blob, name, official=True).load()


class RecordReader:
    """A source over all files that match a pattern."""

    def __init__(self, pattern: str):
        paths = sorted(glob.glob(pattern))
        if not paths:
            raise ValueError(f"data: no file matches '{pattern}'; wanted array_record files by `write_records`.")
        self.name = Path(pattern).name
        self._files = [BlobReader(path) for path in paths]
        self._ends = np.cumsum([len(file) for file in self._files]).tolist()

    def __len__(self) -> int:
        return self._ends[-1]

    def record(self, index: int, rng: np.random.Generator) -> Record:
        number = bisect.bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        return decode(self._files[number][index - first])
