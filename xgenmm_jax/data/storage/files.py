"""Files by path or URL, read by range: what storages stand on. What is said here of a file holds of an object too."""

from collections.abc import Iterator, Sequence
import contextlib
import glob
import itertools
import os
from pathlib import Path
import re
from typing import BinaryIO

from xgenmm_jax import files as local_files
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.source_paths import at_home, literal_first
from xgenmm_jax.data.storage import remote

UNFINISHED = (".part", ".partial")
"""Ends of names of files that are being written, or that a kill left half-written."""

MOST_ENDS = 4
"""Ends of names that an error lists, those that are read first."""

MOST_RANGE = 100_000
"""The most names that the ranges in braces of one pattern may give."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_remote(path: str | Path) -> bool:
    """Whether it is a URL, "gs://bucket/0.tar", and no path."""
    return _URL.match(str(path)) is not None


def matching(pattern: str, ends: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The files that a pattern names, sorted: `*`, `?`, `[...]`, and ranges in braces, "{0000..0999}.tar".

    A name of a range that is not there is an error, since somebody counted on it. ends: names that count, (".tar",).

    Each folder of a bucket is listed once, and the sizes that the listing gives are kept for `size`.

    Raises SourceError where no file matches.
    """
    matches: set[str] = set()
    missing: list[str] = []
    patterns = _expanded(pattern)
    for one, paths in remote.find(patterns) if is_remote(pattern) else map(_of_folders, patterns):
        paths = [path for path in paths if not path.endswith(UNFINISHED) and (not ends or path.endswith(ends))]
        matches.update(paths)
        if not paths and one != pattern:
            missing.append(one)
    if missing and matches:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SourceError(f"data: '{missing[0]}'{more} of '{pattern}' is not there; copy it, or name what is there.")
    if not matches:
        more = " ..." if len(ends) > MOST_ENDS else ""
        ending = f" that ends in {' or '.join(ends[:MOST_ENDS])}{more}" if ends else ""
        raise SourceError(f"data: no file matches '{pattern}'; wanted one{ending}. Check the path.")
    return tuple(sorted(matches))


def _of_folders(pattern: str) -> tuple[str, list[str]]:
    return pattern, [path for path in glob.glob(literal_first(pattern)) if os.path.isfile(path)]


def _expanded(pattern: str) -> Iterator[str]:
    """The patterns that ranges in braces stand for: "{08..10}" gives 08, 09, 10."""
    parts = _RANGE.split(pattern)
    ranges = list(zip(parts[1::3], parts[2::3], strict=True))
    count = 1
    for first, last in ranges:
        count *= max(0, int(last) - int(first) + 1)
    if count > MOST_RANGE or (ranges and count < 1):
        raise SourceError(f"data: the ranges of '{pattern}' give {count:,} names; wanted 1 to {MOST_RANGE:,}.")
    texts = [[str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)] for first, last in ranges]
    for numbers in itertools.product(*texts):
        filled = itertools.chain.from_iterable(zip(numbers, parts[3::3], strict=True))
        yield parts[0] + "".join(filled)


def size(path: str) -> int:
    """Bytes of a file. Raises SourceError where it is gone."""
    if is_remote(path):
        return remote.size(path)
    with _of_source(path):
        return os.path.getsize(path)


def read(path: str, offset: int, length: int) -> bytes:
    """A range of a file.

    Raises SourceError where the file is gone or ends before it, or a bucket does not answer; ValueError where this
    range alone cannot be read.
    """
    if is_remote(path):
        return remote.read(path, offset, length)
    with _of_source(path), open(path, "rb", buffering=0) as file:
        data = os.pread(file.fileno(), length, offset)
        while data and len(data) < length and (more := os.pread(file.fileno(), length - len(data), offset + len(data))):
            data += more
    if len(data) < length:
        end = offset + length
        raise SourceError(f"data: '{path}' has {offset + len(data):,} bytes and was to have {end:,}; copy it again.")
    return data


@contextlib.contextmanager
def stream(path: str) -> Iterator[BinaryIO]:
    """A file for reading from its beginning on, without going back. Raises SourceError where it is gone."""
    if is_remote(path):
        with remote.stream(path) as file:
            yield file
        return
    with _of_source(path):
        file = open(path, "rb")  # noqa: SIM115
    with file:
        yield file


def read_whole(path: str) -> bytes | None:
    """A file; None where there is none. Raises SourceError where it cannot be read."""
    if is_remote(path):
        return remote.read_whole(path)
    try:
        return at_home(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceError(f"data: '{path}' cannot be read ({error.strerror or error}); check the path.") from error


def write_whole(path: str, data: bytes) -> None:
    """A file that a reader or a kill never meets half of; folders on its way are made.

    Raises SourceError where it cannot be written.
    """
    if is_remote(path):
        remote.write_whole(path, data)
        return
    try:
        local = at_home(path)
        local.parent.mkdir(parents=True, exist_ok=True)
        local_files.write_whole(local, data)
    except OSError as error:
        raise SourceError(
            f"data: '{path}' cannot be written ({error.strerror or error}); check the path and the disk."
        ) from error


def remove(path: str) -> None:
    """Deletes a file, where it is there. Raises SourceError where it cannot be deleted."""
    if is_remote(path):
        remote.remove(path)
        return
    with _of_source(path):
        at_home(path).unlink(missing_ok=True)


def exists(path: str) -> bool:
    """Whether there is a file or a folder. Raises SourceError where a bucket does not answer."""
    return remote.exists(path) if is_remote(path) else at_home(path).exists()


def delete_unfinished(folder: str) -> None:
    """Deletes what killed processes of this machine have left of `write_whole` in a folder; a bucket has nothing so."""
    if not is_remote(folder):
        local_files.delete_unfinished(at_home(folder))


def names_in(folder: str) -> set[str]:
    """Names of the files in a folder; none where it is not there. Raises SourceError where it cannot be listed."""
    if is_remote(folder):
        return remote.names_in(folder)
    with _of_source(folder):
        return set(os.listdir(at_home(folder))) if at_home(folder).is_dir() else set()


@contextlib.contextmanager
def _of_source(path: str) -> Iterator[None]:
    """An error of the file system as one of the source: no record is to blame for a shard that is gone."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(
            f"data: no file '{path}'; it was there before: copy it back, or index its source again."
        ) from error
    except OSError as error:
        raise SourceError(f"data: '{path}' cannot be read ({error.strerror or error}); check the path.") from error


def base_name(path: str) -> str:
    """The name of a file without its folder, of a path or a URL."""
    return path.rstrip("/").rpartition("/")[2]


def join(folder: str, name: str) -> str:
    """A file of a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def below(folder: str, path: str) -> str:
    """The name of a file below a folder: "b/0.tar" of "a/b/0.tar" below "a", "0.tar" of "0.tar" below "."."""
    return path[len(folder) :].lstrip("/") if is_remote(path) else os.path.relpath(path, folder)


def parent(path: str) -> str:
    """The folder of a file: "gs://bucket/a" of "gs://bucket/a/0.tar"; "." of "0.tar"."""
    return remote.parent(path) if is_remote(path) else os.path.dirname(path) or "."


def common_parent(paths: Sequence[str]) -> str:
    """The innermost folder that holds all of the files.

    Raises ValueError where none does: files of two buckets, or of a bucket and a disk, or no file.
    """
    folders = [parent(path) for path in paths]
    starts = {match.group() if (match := _URL.match(folder)) else "" for folder in folders}
    if len(starts) != 1:
        raise ValueError(f"data: {len(paths)} files of {len(starts)} places have no folder in common; name one place.")
    [start] = starts
    if not start:
        return os.path.commonpath(folders) or "."
    shared = os.path.commonprefix([folder.removeprefix(start).split("/") for folder in folders])
    if not shared or not shared[0]:
        raise ValueError(f"data: '{paths[0]}' and '{paths[-1]}' have no folder in common; wanted one bucket.")
    return start + "/".join(shared)
