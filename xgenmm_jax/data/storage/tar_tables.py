"""img2dataset's table beside a tar: texts and image sizes of its samples, so that measuring reads no image.

SSSSS.parquet beside SSSSS.tar has a row for each key that was tried; those of status "success" are the tar's samples,
in its order, and the columns of a row are what its sample's json holds: the caption, annotations that were downloaded
with it. A table that is not of its tar is an error of the source.

Source: docs/reference/data.md#img2dataset-output
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import io
import json
from typing import Any, NamedTuple

from jaxtyping import Int64
import numpy as np
import PIL.Image

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.images import MAX_PIXELS
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.storage import download_status, files
from xgenmm_jax.data.storage.base import Raw, Refused
from xgenmm_jax.files import parse_json

IMAGES, TEXT, JSON = ("jpg", "png", "webp"), "txt", "json"
"""Suffixes of a sample's members that a table tells: img2dataset's formats of images, the caption, all columns."""

MOST_BYTES = 1 << 30
"""Of a table; one of 10,000 keys has some MB."""

CAPTION = "caption"
"""The column that is a sample's text."""

_WANTED = ("key", "status", "width", "height")
_REMEDY = "copy both again, or have sizes read from the images (table=False)"


class TarTable(NamedTuple):
    """The rows of a tar's samples. columns: those that were asked for and are there. refused: rows without a sample."""

    path: str
    keys: list[Any]
    widths: list[Any]
    heights: list[Any]
    columns: dict[str, list[Any]]
    refused: tuple[Refused, ...] = ()


def read(tar: str, columns: Sequence[str] = ()) -> TarTable:
    """The table beside a tar. Raises SourceError where there is none, or it is of another form."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = f"{tar.removesuffix('.tar')}.parquet"
    data = _bytes(path, tar)
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            there = file.schema_arrow.names
            if missing := [name for name in _WANTED if name not in there]:
                raise SourceError(
                    f"data: the table '{path}' has no column {', '.join(missing)}; it has {', '.join(there)[:300]}. "
                    f"It is not img2dataset's of '{tar}': {_REMEDY}."
                )
            names = [name for name in dict.fromkeys((*_WANTED, *columns)) if name in there]
            rows = file.read(columns=names).to_pydict()
    except SourceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(f"data: the table '{path}' of '{tar}' is not whole ({reason}); {_REMEDY}.") from error
    used, refused = download_status.with_image(rows["key"], rows["status"])
    of_samples = {name: [values[number] for number in used] for name, values in rows.items()}
    keys, widths, heights = (of_samples[name] for name in ("key", "width", "height"))
    return TarTable(path, keys, widths, heights, {name: of_samples[name] for name in columns if name in rows}, refused)


def _bytes(path: str, tar: str) -> bytes:
    try:
        size = files.size(path)
    except SourceError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise SourceError(f"data: no table '{path}' beside '{tar}'; {_REMEDY}.") from error
        raise
    if size > MOST_BYTES:
        raise SourceError(f"data: the table '{path}' of '{tar}' has {size:,} bytes, more than {MOST_BYTES:,}.")
    return files.read(path, 0, size)


def hashes(keys: Sequence[Any]) -> Int64[np.ndarray, " n"]:
    """A number for each key, by which the index knows a tar's samples."""
    digests = b"".join(
        hashlib.blake2b(str(key).encode(errors="surrogateescape"), digest_size=8).digest() for key in keys
    )
    return np.frombuffer(digests, "<i8").astype(np.int64)


def check(table: TarTable, tar: str, of_tar: Int64[np.ndarray, " n"]) -> None:
    """Raises SourceError unless the table has the tar's samples, whose `hashes` these are, in their order."""
    of_table = hashes(table.keys)
    if np.array_equal(of_table, of_tar):
        return
    both = min(len(of_table), len(of_tar))
    differing = np.flatnonzero(of_table[:both] != of_tar[:both])
    how = f"they have {len(of_tar):,} and {len(of_table):,} images"
    if len(differing):
        how += f", number {differing[0]} of the table, '{table.keys[differing[0]]}', is another one in the tar"
    raise SourceError(f"data: '{tar}' and the table '{table.path}' are not of each other: {how}; {_REMEDY}.")


class TableShard:
    """A tar's samples as its table tells them: their texts, and images that have a size and no pixels.

    first: the members of the tar's first sample; all have the same suffixes. fields: those that are read, members of a
    sample or columns of its json.
    """

    def __init__(self, tar: str, table: TarTable, first: Mapping[str, bytes], fields: Sequence[str]):
        members = (*IMAGES, TEXT)
        self._members = [name for name in members if name in fields and name in first]
        self._columns = [name for name in fields if name not in members]
        if unknown := [name for name in self._columns if name not in table.columns]:
            raise SourceError(
                f"data: '{unknown[0]}' is read of '{tar}', which the table '{table.path}' does not tell: it stands for "
                f"{', '.join(members)} and its own columns; have sizes read from the images (table=False)."
            )
        if TEXT in self._members and CAPTION not in table.columns:
            raise SourceError(f"data: the table '{table.path}' of '{tar}' has no column caption; {_REMEDY}.")
        if self._columns and first:
            _check_json(tar, table, first, self._columns)
        self._table, self._name = table, files.base_name(tar)

    def __len__(self) -> int:
        return len(self._table.keys)

    def read(self, index: int) -> Raw:
        """Raises RecordError where the table has no size that an image may have."""
        key = f"{self._name}/{self._table.keys[index]}"
        members: dict[str, Any] = {}
        for name in self._members:
            if name in IMAGES:
                members[name] = self._image(key, index)
            else:
                caption = self._table.columns[CAPTION][index]
                members[name] = b"" if caption is None else str(caption).encode()
        if self._columns:
            # As readers find them in the tar, so that a field is read alike in both.
            values = {name: self._table.columns[name][index] for name in self._columns}
            try:
                members[JSON] = json.dumps(values).encode()
            except (TypeError, ValueError) as error:  # bytes, a date
                raise RecordError(key, f"'{self._table.path}' has what no json holds ({error})") from error
        return Raw(key, members)

    def close(self) -> None:
        """Nothing is held open."""

    def _image(self, key: str, index: int) -> LazyImage:
        width, height = self._table.widths[index], self._table.heights[index]
        # Early versions wrote floats: pandas' numbers where some are missing.
        if not all(isinstance(side, int | float) and side > 0 and side == int(side) for side in (width, height)):
            raise RecordError(
                key, f"'{self._table.path}' has the size {width} x {height}, wanted whole numbers above 0"
            )
        if width * height > MAX_PIXELS:
            raise RecordError(key, f"an image of {width} x {height} pixels, more than {MAX_PIXELS:,}; scale it down")
        return LazyImage((int(width), int(height)), functools.partial(_no_pixels, key))


def _check_json(tar: str, table: TarTable, first: Mapping[str, bytes], columns: Sequence[str]) -> None:
    """Raises SourceError unless the first sample's json has these columns, and texts as the table's first row."""
    try:
        there = parse_json(first.get(JSON, b""))
    except ValueError:
        there = None
    for name in columns:
        if not isinstance(there, dict) or name not in there:
            raise SourceError(
                f"data: '{name}' is a column of the table '{table.path}', and the first sample of '{tar}' has no json "
                f"with it; {_REMEDY}."
            )
        if isinstance(there[name], str) and there[name] != table.columns[name][0]:
            raise SourceError(
                f"data: '{tar}' and the table '{table.path}' are not of each other: '{name}' of the first sample "
                f"differs; {_REMEDY}."
            )


def _no_pixels(key: str) -> PIL.Image.Image:
    raise AssertionError(f"{key} is known by its table alone")
