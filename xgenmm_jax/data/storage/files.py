"""Files by path or URL, read by range: what storages stand on."""

from collections.abc import Iterator, Sequence
import contextlib
import glob
import itertools
import os
from pathlib import Path
import re
from typing import BinaryIO

from xgenmm_jax import files as xgenmm_files
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.source_paths import literal_first

UNFINISHED = (".part", ".partial")
"""Ends of names of files that are being written, or that a kill left half-written."""

MOST_RANGE = 100_000
"""The most names that the ranges in braces of one pattern may give."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def matching(pattern: str, ends: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The files that a pattern names, sorted: `*`, `?`, `[...]`, and ranges in braces, "{0000..0999}.tar".

    A name of a range that is not there is an error, since somebody counted on it. ends: names that count, (".tar",).

    Raises SourceError where no file matches.
    """
    found: set[str] = set()
    missing: list[str] = []
    for one in _expanded(pattern):
        paths = [path for path in glob.glob(literal_first(one)) if not path.endswith(UNFINISHED)]
        paths = [path for path in paths if os.path.isfile(path) and (not ends or path.endswith(ends))]
        found.update(paths)
        if not paths and one != pattern:
            missing.append(one)
    if missing and found:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SourceError(f"data: '{missing[0]}'{more} of '{pattern}' is not there; copy it, or name what is there.")
    if not found:
        wanted = f" that ends in {' or '.join(ends)}" if ends else ""
        raise SourceError(f"data: no file matches '{pattern}'; wanted one{wanted}. Check the path.")
    return tuple(sorted(found))


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
    with _of_source(path):
        return os.path.getsize(path)


def read(path: str, offset: int, length: int) -> bytes:
    """A range of a file. Raises SourceError where the file is gone, or ends before it."""
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
    """A file for reading from its beginning on. Raises SourceError where it is gone."""
    with _of_source(path):
        file = open(path, "rb")  # noqa: SIM115
    with file:
        yield file


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
    return Path(path).name


def write_whole(path: str, data: bytes) -> None:
    """Writes a file that appears whole; its folder is made."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    xgenmm_files.write_whole(Path(path), data)


def read_whole(path: str) -> bytes | None:
    """A small file; None where there is none."""
    with _of_source(path):
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None


def remove(path: str) -> None:
    """Deletes a file, where it is there."""
    with _of_source(path):
        Path(path).unlink(missing_ok=True)


def names_in(folder: str) -> set[str]:
    """Names of what lies in a folder; none where it is not there."""
    with _of_source(folder):
        return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def join(folder: str, name: str) -> str:
    return os.path.join(folder, name)


def common_parent(paths: Sequence[str]) -> str:
    """The folder that all files lie below."""
    return os.path.commonpath([os.path.dirname(path) or "." for path in paths])
