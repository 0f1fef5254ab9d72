"""Files of byte strings (array_record), and the note beside them of how many each holds.

array_record says nothing of a file that is missing, cut or one too many to be open: it counts 0 records. So files are
looked at here before it is, and counts are compared with what the writer noted in `shards.json`:

    {"shards": [{"name": "a-0.array_record", "records": 3, "bytes": 131072}]}

`python -m xgenmm_jax.data.storage.array_record PATTERN` notes files that have none, or whose note is no longer true.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import errno
import fcntl
import fnmatch
import functools
import glob
import json
import os
from pathlib import Path
import sys
import threading
from typing import Any, NamedTuple
import weakref

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.source_paths import literal_first
from xgenmm_jax.files import read_json, write_whole

NOTE_FILE = "shards.json"
UNFINISHED = (".part", ".partial")
"""Ends of names of files that are being written, or that a kill left half-written."""

# One record a group: reading one decompresses no neighbours. What is stored here is compressed already.
WRITER_OPTIONS = "group_size:1,uncompressed"

MOST_OPEN = 64
"""Files of all sources that a process has open at a time: its usual limit is 1,024 descriptors of all kinds."""


class Noted(NamedTuple):
    """What the note says of a file."""

    records: int
    bytes: int


def write_blobs(path: str | Path, blobs: Iterable[bytes]) -> int:
    """An array_record file of byte strings, renamed into place when it is complete; gives their number.

    Raises SourceError where it cannot be written, or does not hold what was written.
    """
    count = 0

    def write(beside: Path) -> None:
        nonlocal count
        writer = _written(path, ArrayRecordWriter, str(beside), WRITER_OPTIONS)
        for blob in blobs:
            _written(path, writer.write, blob)
            count += 1
        _written(path, writer.close)
        readable = len(BlobReader(beside))
        if readable != count:
            raise SourceError(f"data: '{path}' holds {readable} of the {count} records written; is the disk full?")

    write_whole(Path(path), write)
    return count


def _written(path: str | Path, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except RuntimeError as error:
        raise SourceError(
            f"data: '{path}' was not written ({_first_line(error)}); is its folder there, and the disk not full?"
        ) from error


class BlobReader:
    """Random access to one array_record file; any thread may read. At most MOST_OPEN files of a process stay open.

    records: how many it must hold, as noted; then it is opened when it is first read. None: opened and counted now.
    noted_in: the file beside it that says so.

    Raises SourceError, here or when it is read, for a file that is no whole array_record file, or has another number.
    """

    def __init__(self, path: str | Path, records: int | None = None, noted_in: str = NOTE_FILE):
        self._path, self._noted_in = str(path), noted_in
        self._lock = threading.Lock()
        self._reader: ArrayRecordReader | None = None
        self._count = records
        if records is None:
            with self._lock:
                self._opened()

    def __len__(self) -> int:
        assert self._count is not None
        return self._count

    def __getitem__(self, index: int) -> bytes:
        """Raises ValueError where the record is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        with self._lock:
            try:
                return self._opened().read([index])[0]
            except (RuntimeError, IndexError) as error:
                raise ValueError(
                    f"record {index} of '{self._path}' is damaged ({_first_line(error)}); copy or write the file again."
                ) from error

    def _opened(self) -> ArrayRecordReader:
        reader = self._reader
        if reader is None:
            reader, count = _open(self._path)
            if self._count is None:
                self._count = count
            elif count != self._count:
                remedy = f", or {_note_anew(self._path)}" if self._noted_in == NOTE_FILE else ""
                raise SourceError(
                    f"data: '{self._path}' holds {count} records and {self._noted_in} beside it says {self._count}; "
                    f"copy or write it again{remedy}."
                )
            self._reader = reader
        _OPEN.use(self)
        return reader

    def close(self) -> None:
        """Lets go of the file until it is read again. A thread that reads from it just now reads to its end."""
        self._reader = None


class _OpenFiles:
    """The readers whose files are open, the least recently used first."""

    def __init__(self):
        self._lock = threading.Lock()
        self._readers: weakref.WeakKeyDictionary[BlobReader, None] = weakref.WeakKeyDictionary()

    def use(self, reader: BlobReader) -> None:
        with self._lock:
            self._readers.pop(reader, None)
            self._readers[reader] = None
            self._keep(MOST_OPEN)

    def close_all(self) -> None:
        with self._lock:
            self._keep(0)

    def _keep(self, most: int) -> None:
        for reader in list(self._readers)[: max(0, len(self._readers) - most)]:
            del self._readers[reader]
            reader.close()


_OPEN = _OpenFiles()


def _open(path: str) -> tuple[ArrayRecordReader, int]:
    """An open file and its number of records. Raises SourceError where it cannot be read as a whole."""
    cause = ""
    for _ in range(2):
        try:
            # array_record names no cause, so Python opens it first.
            with open(path, "rb") as file:
                if not file.read(1):
                    raise SourceError(f"data: '{path}' is empty; copy or write it again.")
            reader = ArrayRecordReader(path, "readahead_buffer_size:0")
            count = reader.num_records()
            if reader.ok():
                return reader, count
            cause = "no array_record file, or cut"
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise SourceError(f"data: '{path}' cannot be opened ({error.strerror}); check the path.") from error
            cause = f"{error.strerror}: raise the limit with ulimit -n"
        except RuntimeError as error:
            cause = _first_line(error)
        _OPEN.close_all()  # a process at its limit of open files fails here like a damaged file
    raise SourceError(f"data: '{path}' is not a whole array_record file ({cause}); copy or write it again.")


def open_shards(pattern: str | Path) -> list[BlobReader]:
    """The files of `noted_shards`; those that a note holds are opened when they are read, all others now."""
    return [BlobReader(path, None if noted is None else noted.records) for path, noted in noted_shards(pattern)]


def noted_shards(pattern: str | Path) -> list[tuple[str, Noted | None]]:
    """The files that match a pattern, in sorted order, and what the note of their folder says of each.

    None: the folder has no note.

    Raises SourceError where none matches, or one is not whole, missing, not noted or of another size than noted.
    """
    paths = sorted(path for path in glob.glob(literal_first(pattern)) if _is_shard(path))
    parent, name_pattern = os.path.split(literal_first(pattern))
    notes = {folder: read_note(folder) for folder in glob.glob(parent or ".") if os.path.isdir(folder)}
    # Files against the note of their folder: each one noted, and of the size that is noted.
    shards, problems = [], []
    for path in paths:
        if os.path.isdir(path):
            raise SourceError(f"data: '{path}' is a folder; name its files, '{path}/*.array_record'.")
        note = notes.get(os.path.dirname(path) or ".")
        noted = None if note is None else note.get(os.path.basename(path))
        if note is not None and noted is None:
            problems.append(f"'{path}' is not noted")
        elif noted is not None and (size := os.path.getsize(path)) != noted.bytes:
            problems.append(f"'{path}' has {size:,} bytes for {noted.bytes:,}")
        shards.append((path, noted))
    # And the other way round: noted files that the pattern matches must be there.
    for folder, note in notes.items():
        present = {os.path.basename(path) for path in paths if (os.path.dirname(path) or ".") == folder}
        for name in sorted((note or {}).keys() - present):
            if fnmatch.fnmatchcase(name, name_pattern) and (not name.startswith(".") or name_pattern.startswith(".")):
                problems.append(f"'{os.path.join(folder, name)}' is missing")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise SourceError(
            f"data: the files are not those of the {NOTE_FILE} beside them: {'; '.join(problems[:3])}{more}. Copy or "
            f"write them again, or, if they are as they should be, {_note_anew(pattern)}."
        )
    if not paths:
        raise SourceError(f"data: no file matches '{pattern}'; wanted array_record files by `write_records`.")
    return shards


def _is_shard(path: str) -> bool:
    return os.path.basename(path) != NOTE_FILE and not path.endswith(UNFINISHED)


def read_note(folder: str | Path) -> dict[str, Noted] | None:
    """What each noted file of a folder holds; None where there is no note. Raises SourceError for another form."""
    path = Path(folder) / NOTE_FILE
    remedy = f"delete it, and {_note_anew(path.with_name('*.array_record'))}"
    try:
        rows = read_json(path, remedy)["shards"]
        noted = {row["name"]: Noted(row["records"], row["bytes"]) for row in rows}
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise SourceError(f"data: '{path}' is not a note of shards; {remedy}.") from error
    except (ValueError, OSError) as error:
        raise SourceError(f"data: {error}") from error
    if not all(isinstance(name, str) for name in noted) or not all(
        type(number) is int and number >= 0 for one in noted.values() for number in one
    ):
        raise SourceError(f"data: '{path}' is not a note of shards; {remedy}.")
    return noted


def note_of(folder: str | Path) -> dict[str, Noted] | None:
    """`read_note`, read again where the file has changed; not to be changed."""
    try:
        status = os.stat(Path(folder) / NOTE_FILE)
    except FileNotFoundError:
        return None
    return _note_as_of(str(folder), status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=16)
def _note_as_of(folder: str, mtime_ns: int, size: int, inode: int) -> dict[str, Noted] | None:
    return read_note(folder)


def note(path: str | Path, records: int) -> None:
    """Notes a file that is in its place. Several processes may write files of one folder at the same time."""
    path = Path(path)
    with _alone(path.parent):
        _write_note(path.parent, {**(read_note(path.parent) or {}), path.name: Noted(records, path.stat().st_size)})


def note_none(folder: str | Path) -> None:
    """Notes that a folder has no files, so that those which are written to it are refused until they are noted."""
    with _alone(Path(folder)):
        _write_note(Path(folder), {})


def note_anew(pattern: str | Path) -> list[tuple[str, int]]:
    """Counts the files that match and notes them; noted files that match and are gone are forgotten. Gives the counts.

    Raises SourceError where one is not whole.
    """
    paths = sorted(path for path in glob.glob(literal_first(pattern)) if _is_shard(path))
    counts = [(path, len(BlobReader(path))) for path in paths]
    parent, name_pattern = os.path.split(literal_first(pattern))
    for folder in map(Path, glob.glob(parent or ".")):
        if not folder.is_dir():
            continue
        with _alone(folder):
            before = read_note(folder)
            others = {name: one for name, one in (before or {}).items() if not fnmatch.fnmatchcase(name, name_pattern)}
            matching = {Path(p).name: Noted(n, os.path.getsize(p)) for p, n in counts if Path(p).parent == folder}
            if before is not None or matching:
                _write_note(folder, others | matching)
    return counts


def _write_note(folder: Path, shards: dict[str, Noted]) -> None:
    rows = ",\n".join(json.dumps({"name": name, **shards[name]._asdict()}) for name in sorted(shards))
    write_whole(folder / NOTE_FILE, f'{{"shards": [\n{rows}\n]}}\n')


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a folder's lock, for processes and threads alike. Where the file system has no locks nothing is held."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _note_anew(pattern: str | Path) -> str:
    return f"note them with python -m xgenmm_jax.data.storage.array_record '{pattern}'"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def main(patterns: Sequence[str]) -> int:
    """Notes files; gives the exit code."""
    try:
        for pattern in patterns:
            counts = note_anew(pattern)
            print(f"{pattern}: {len(counts)} files, {sum(count for _, count in counts):,} records noted")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
