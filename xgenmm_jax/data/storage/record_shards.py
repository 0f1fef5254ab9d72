"""array_record files as a storage: byte strings by number."""

from dataclasses import dataclass
import os
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.storage import array_record, files
from xgenmm_jax.data.storage.array_record import NOTE_FILE, BlobReader
from xgenmm_jax.data.storage.base import Located, Raw

FIELDS = ("data",)


@dataclass(frozen=True)
class ArrayRecords:
    """array_record files that match a pattern, compared with `shards.json` beside them; the field "data" is a record.

    On disks alone: array_record waits for minutes where it is given "gs://". A bucket is mounted.
    """

    pattern: str

    PATH_FIELDS: ClassVar[tuple[str, ...]] = ("pattern",)

    def shards(self) -> tuple[str, ...]:
        """Raises SourceError where one is missing, not noted or of another size than noted."""
        _check_local(self.pattern)
        return tuple(path for path, _ in array_record.noted_shards(self.pattern))

    def size(self, shard: str) -> int:
        _check_local(shard)
        return files.size(shard)

    def locate(self, shard: str) -> Located:
        """As many records as are noted; a file without a note is opened and counted."""
        _check_local(shard)
        folder, name = os.path.split(shard)
        noted = (array_record.note_of(folder or ".") or {}).get(name)
        if noted is None:
            return Located(len(BlobReader(shard)), {})
        if (size := files.size(shard)) != noted.bytes:
            raise SourceError(
                f"data: '{shard}' has {size:,} bytes and {NOTE_FILE} beside it says {noted.bytes:,}; copy or write it "
                "again."
            )
        return Located(noted.records, {})

    def open(
        self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> "RecordShard":
        """The file is opened when it is first read. Raises SourceError where one of `fields` is not "data"."""
        _check_local(shard)
        if not set(fields) <= set(FIELDS):
            missing = ", ".join(repr(name) for name in fields if name not in FIELDS)
            raise SourceError(f"data: '{shard}' has no {missing}; records of array_record have 'data' alone.")
        return RecordShard(shard, located.records)


class RecordShard:
    """Records of one file by number."""

    def __init__(self, path: str, records: int):
        self._name, self._reader = files.base_name(path), BlobReader(path, records)

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, index: int) -> Raw:
        """Raises SourceError where the file holds another number of records than when it was located."""
        key = f"{self._name}/{index}"
        try:
            return Raw(key, {"data": self._reader[index]})
        except SourceError:
            raise
        except ValueError as error:
            raise RecordError(key, error) from error

    def close(self) -> None:
        self._reader.close()


def _check_local(path: str) -> None:
    if files.is_remote(path):
        raise SourceError(
            f"data: '{path}' is a URL, for which array_record waits for minutes; mount the bucket and name the path."
        )
