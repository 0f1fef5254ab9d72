"""Pictures that stay in their benchmark's file: their bytes are read again for their pixels, and known by a digest."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
import functools
import hashlib
from pathlib import Path
import threading
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from xgenmm_jax.data import images
from xgenmm_jax.data.records import LazyImage

CACHE_BYTES = 256 << 20
"""Of pictures of a benchmark's Parquet files that are kept in memory; hub's row groups have some 10 to 100 MB."""
BATCH_ROWS = 64
"""Rows of a Parquet file that are read at once."""
BUFFER_BYTES = 1 << 20
"""Of a column's file that are read ahead; without a buffer Arrow reads a whole row group of it."""


@dataclass(frozen=True)
class FileImage(LazyImage):
    """A picture of a file of many. digest: gives the SHA-256 of its encoded bytes, in hexadecimal digits."""

    digest: Callable[[], str] = field(default=lambda: "", repr=False)


def digest_of(image: LazyImage) -> str:
    """Equal for pictures of equal encoded bytes, whatever file they lie in, and of equal pixels where they have none.

    One text for all that cannot be read.
    """
    if isinstance(image, FileImage):
        return image.digest()
    try:
        return hashlib.sha256(images.encoded(image)).hexdigest()
    except (ValueError, OSError):
        return "unreadable"


class FileImages:
    """Makes the pictures of a benchmark's files; those of equal bytes are one object, so that they are encoded once."""

    def __init__(self) -> None:
        self._known: dict[str, FileImage] = {}

    def image(self, data: bytes, read: Callable[[], bytes], name: str) -> FileImage:
        """The picture in encoded bytes, which are not kept. read: gives them again. name: what errors call it.

        Raises ValueError where they are none.
        """
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._known:
            size_px = images.image_from_bytes(data, name, official=True).size_px
            load = functools.partial(_load, read, digest, name)
            self._known[digest] = FileImage(size_px, load, digest=functools.partial(str, digest))
        return self._known[digest]


def _load(read: Callable[[], bytes], digest: str, name: str) -> PIL.Image.Image:
    try:
        data = read()
    except (OSError, LookupError, pa.ArrowException) as error:
        raise ValueError(f"image: {name} cannot be read again ({error}); put its file back as it was.") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"image: {name} is not what it was; leave its file alone while it is used.")
    return images.image_from_bytes(data, name, official=True).load()


class ParquetCells:
    """Cells of a column of pictures, read again by row group; the last ones are kept, CACHE_BYTES of them or one."""

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Path, int, str, int], pa.ChunkedArray] = OrderedDict()

    def cell(self, path: Path, group: int, column: str, row: int) -> Any:
        """The value of a row, counted in its row group."""
        with self._lock:
            whole = self._fits(path, group, column)
            start = 0 if whole else row // BATCH_ROWS * BATCH_ROWS
            key = (path, group, column, start)
            if key not in self._kept:
                self._kept[key] = self._read(path, group, column, None if whole else start)
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > self._most_bytes:
                self._kept.popitem(last=False)
            return self._kept[key][row - start].as_py()

    @functools.cache  # noqa: B019 - of a few row groups, and as long as the pictures
    def _fits(self, path: Path, group: int, column: str) -> bool:
        """Whether a row group's pictures may be in memory at once."""
        with pq.ParquetFile(path) as file:
            metadata = file.metadata.row_group(group)
            columns = [metadata.column(number) for number in range(metadata.num_columns)]
            chunks_of_column = [one for one in columns if one.path_in_schema.split(".")[0] == column]
            return sum(one.total_uncompressed_size for one in chunks_of_column) <= self._most_bytes

    def _read(self, path: Path, group: int, column: str, start: int | None) -> pa.ChunkedArray:
        """A row group's cells; of a large one a batch from `start` on, for which those before are read and dropped."""
        with pq.ParquetFile(path, buffer_size=BUFFER_BYTES) as file:
            if start is None:
                return file.read_row_group(group, [column], use_threads=False).column(0)
            batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False)
            for number, batch in enumerate(batches):
                if number == start // BATCH_ROWS:
                    return pa.chunked_array([batch.column(0)])
        raise LookupError(f"row {start} of row group {group}")
