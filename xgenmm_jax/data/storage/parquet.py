"""Parquet files: a record is a row, its fields are the columns that are asked for.

Rows are read by row group, since the format has nothing smaller that stands alone; the groups that were read last are
kept, for all open shards of a process together.
"""

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import logging
import os
import threading
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.image_files import in_words
from xgenmm_jax.data.storage import download_status, files, images
from xgenmm_jax.data.storage.base import Located, Raw
from xgenmm_jax.data.storage.range_file import RangeFile
from xgenmm_jax.data.storage.shared_cache import SharedCache

LOG = logging.getLogger(__name__)

MOST_CACHED_BYTES = 512 << 20
"""Of row groups in memory, in a process; the last that was read is kept whatever its size."""

LARGE_GROUP_BYTES = 256 << 20
"""Uncompressed, all columns. Reading one row costs its whole group: in larger ones random access is slow."""

ROW = "row"
"""Of a record, in what is located: the number of its row, where not all rows are records."""

_groups: SharedCache[pa.Table] = SharedCache(MOST_CACHED_BYTES, lambda table: table.nbytes)


@dataclass(frozen=True)
class Parquet:
    """Parquet files that match a pattern, "data/{001..050}.parquet".

    images: a folder, by path or URL, in which `Raw.image` looks for the files that records name, or one of
        `xgenmm data join`.

    A field is a column, or a member of a struct: "image.bytes" is the encoded image of Hugging Face's struct
    {bytes, path}, and "image" the whole of it as a dict. Values are Python's: bytes, str, int, float, bool, lists,
    dicts, dates, None for null. Nothing in a file is ever unpickled; columns of Arrow's extension types are refused.

    Of img2dataset's tables the rows that have an image are the records; the others are counted by their status.
    """

    pattern: str
    images: str | None = None

    PATH_FIELDS: ClassVar[tuple[str, ...]] = ("pattern", "images")

    def shards(self) -> tuple[str, ...]:
        return files.matching(self.pattern, (".parquet",))

    def size(self, shard: str) -> int:
        return files.size(shard)

    def locate(self, shard: str) -> Located:
        """Counts rows by the footer, of img2dataset's tables by `status`; warns of row groups that make reading slow.

        Raises SourceError where the file is cut off or no Parquet file.
        """
        with _opened(shard) as file:
            metadata, rows, refused = file.metadata, None, ()
            if download_status.has_status(file.schema_arrow.names):
                with _of_shard(shard, "the status of "):
                    table = file.read(columns=[download_status.KEY, download_status.STATUS]).to_pydict()
                rows, refused = download_status.with_image(table[download_status.KEY], table[download_status.STATUS])
        groups = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
        large = [size for size in groups if size > LARGE_GROUP_BYTES]
        if large:
            LOG.warning(
                f"data: '{shard}' has {len(large)} row groups of more than {LARGE_GROUP_BYTES >> 20} MB, up to "
                f"{max(large) >> 20:,} MB uncompressed, and each row read at random costs its whole group; "
                "`xgenmm data pack` makes random reads cheap."
            )
        return Located(metadata.num_rows, {}) if rows is None else Located(len(rows), {ROW: rows}, refused)

    def open(
        self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> "ParquetShard":
        """Raises SourceError where one of `fields` is no column, or a column is of an extension type."""
        return ParquetShard(shard, located, fields, optional, self.images)


class _Column(NamedTuple):
    """A field that is read: the column's name, and the members of structs that lead to it."""

    field: str
    column: str
    members: tuple[str, ...]


class ParquetShard:
    """Records of one file by number, which is their row's where all rows are records.

    Row groups that were read stay in the process's cache when it is closed.
    """

    def __init__(
        self, path: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...], folder: str | None
    ):
        self._path, self._name = path, files.base_name(path)
        self._image = images.opener(folder)
        self._lock = threading.Lock()  # pyarrow does not say that one file may be read from two threads
        self._closing = contextlib.ExitStack()
        self._file = self._closing.enter_context(_opened(path))
        try:
            metadata = self._file.metadata
            self._rows = located.arrays.get(ROW)
            in_index = located.records if self._rows is None else max(self._rows.tolist(), default=-1) + 1
            if metadata.num_rows < in_index or (self._rows is None and metadata.num_rows != in_index):
                raise SourceError(
                    f"data: '{path}' has {metadata.num_rows:,} rows and its index {in_index:,}; index the source again."
                )
            self._columns = _columns(self._file.schema_arrow, path, fields, optional)
            rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            self._ends = np.cumsum(rows, dtype=np.int64)
            names = tuple(sorted(".".join((one.column, *one.members)) for one in self._columns))
            self._key = (path, _version(path), names)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        if self._rows is not None:
            return len(self._rows)
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, index: int) -> Raw:
        """Raises SourceError where the row group cannot be read, RecordError where a value of the row is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"data: record {index} of '{self._path}', which has {len(self):,}")
        number = index if self._rows is None else int(self._rows[index])
        group = int(np.searchsorted(self._ends, number, side="right"))
        table = _groups.get((*self._key, group), lambda: self._group(group))
        row = number - (int(self._ends[group]) - self._file.metadata.row_group(group).num_rows)
        key = f"{self._name}[{index}]"
        return Raw(key, _values(table, row, self._columns, key), self._image)

    def close(self) -> None:
        self._closing.close()

    def _group(self, number: int) -> pa.Table:
        names = list(self._key[-1])
        with self._lock, _of_shard(self._path, f"row group {number} of "):
            return self._file.read_row_group(number, columns=names)


def _values(table: pa.Table, row: int, columns: tuple[_Column, ...], key: str) -> dict[str, Any]:
    """A row's values by field. Raises RecordError where one is none of Python: text that is no UTF-8, a wild date."""
    whole: dict[str, Any] = {}
    values = {}
    for field, column, members in columns:
        try:
            if column not in whole:
                whole[column] = table.column(column)[row].as_py()
        except (ValueError, ArithmeticError, pa.ArrowException) as error:
            raise RecordError(key, f"'{column}' cannot be read ({in_words(error)})") from error
        value = whole[column]
        for member in members:
            value = None if value is None else value[member]
        values[field] = value
    return values


def _columns(schema: pa.Schema, path: str, fields: tuple[str, ...], optional: tuple[str, ...]) -> tuple[_Column, ...]:
    """The fields that are there, all columns where none is asked for. Raises SourceError as `Parquet.open`."""
    columns = {name: _find(schema, name) for name in dict.fromkeys((*fields, *optional) or schema.names)}
    if missing := [name for name in fields if columns[name] is None]:
        raise SourceError(
            f"data: '{path}' has no column {_quoted(missing)}; the columns found: {_quoted(schema.names)}; "
            f"the ones wanted: {_quoted(fields)}."
        )
    for name, column in columns.items():
        if column is not None and (extension := _extension(column[1])):
            raise SourceError(
                f"data: the column '{name}' of '{path}' is of Arrow's extension type '{extension}', which is not read; "
                "write it as plain values, or name the fields that are wanted."
            )
    return tuple(column[0] for column in columns.values() if column is not None)


def _quoted(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(f"'{name[:100]}'" for name in names[:50])
    return f"{shown} and {len(names) - 50} more" if len(names) > 50 else shown or "none"


def _find(schema: pa.Schema, name: str) -> tuple[_Column, pa.Field] | None:
    """A column, or a member of a struct by its path; a column whose own name has dots comes first."""
    if schema.get_field_index(name) >= 0:
        return _Column(name, name, ()), schema.field(name)
    column, *members = name.split(".")
    if not members or schema.get_field_index(column) < 0:
        return None
    field = schema.field(column)
    for member in members:
        if not pa.types.is_struct(field.type) or field.type.get_field_index(member) < 0:
            return None
        field = field.type.field(member)
    return _Column(name, column, tuple(members)), field


def _extension(field: pa.Field) -> str | None:
    """The name of an extension type in a column: of one that pyarrow knows, or that its file names."""
    if isinstance(field.type, pa.BaseExtensionType):
        return field.type.extension_name
    if field.metadata and b"ARROW:extension:name" in field.metadata:
        return field.metadata[b"ARROW:extension:name"].decode("utf-8", "replace")[:100]
    inner = [field.type.field(number) for number in range(field.type.num_fields)]
    return next((name for one in inner if (name := _extension(one))), None)


def _version(path: str) -> tuple[int, ...]:
    """By which a file that was replaced by another is told from it."""
    if files.is_remote(path):
        return (files.size(path),)
    with _of_shard(path):
        status = os.stat(path)
    return (status.st_ino, status.st_size, status.st_mtime_ns)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    """Raises SourceError where the file is gone, cut off or of another format."""
    files.size(path)
    with contextlib.ExitStack() as closing:
        with _of_shard(path):
            # Not memory-mapped: a mapped file that is cut while it is read kills the process.
            native = pa.PythonFile(RangeFile(path), mode="r") if files.is_remote(path) else pa.OSFile(path)
            closing.enter_context(native)
            # JSON and UUID of Parquet itself are text and bytes, not Arrow's extension types.
            file = pq.ParquetFile(native, page_checksum_verification=True, arrow_extensions_enabled=False)
        yield file


@contextlib.contextmanager
def _of_shard(path: str, part: str = "") -> Iterator[None]:
    """What pyarrow raises, as an error of the source."""
    try:
        yield
    except SourceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(
            f"data: {part}'{path}' is not whole, or not Parquet ({in_words(error)}); copy it again."
        ) from error
