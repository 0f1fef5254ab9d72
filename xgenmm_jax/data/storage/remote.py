"""Objects of buckets, and whatever else fsspec reads by URL: "gs://bucket/folder/0000.tar"."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
import contextlib
import fnmatch
import glob
import io
import threading
import time
from typing import Any, TypeVar

from xgenmm_jax import requests
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.requests import FailedError, Request, RequestError

CHUNK_BYTES = 8 << 20
"""Bytes of one request where an object is read from its beginning on."""

MOST_SIZES = 100_000
"""Sizes that are kept of listings, some 200 bytes each."""


T = TypeVar("T")


class _Sizes:
    """Sizes by URL, the oldest forgotten first."""

    def __init__(self):
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def get(self, url: str) -> int | None:
        with self._lock:
            return self._sizes.get(url)

    def put(self, sizes: dict[str, int]) -> None:
        with self._lock:
            for url, size in sizes.items():
                self._sizes.pop(url, None)
                self._sizes[url] = size
            while len(self._sizes) > MOST_SIZES:
                self._sizes.popitem(last=False)

    def forget(self, url: str) -> None:
        with self._lock:
            self._sizes.pop(url, None)


_SIZES = _Sizes()


def parent(url: str) -> str:
    """The folder of an object: "gs://bucket" of "gs://bucket/0.tar"."""
    protocol, _, rest = url.partition("://")
    return f"{protocol}://{rest.rpartition('/')[0]}"


def find(patterns: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each pattern with the URLs that it names. A folder is listed once; the sizes in the listing are kept.

    A pattern alone that is an object's name as it is written names that object.
    """
    patterns = list(patterns)
    if len(patterns) == 1 and _is_object(patterns[0]):
        yield patterns[0], patterns
        return
    listings: dict[str, dict[str, int]] = {}
    for pattern in patterns:
        folder, name = parent(pattern), pattern.rpartition("/")[2]
        # A pattern for folders is a listing of its own.
        listed = pattern if glob.has_magic(folder) else folder
        if listed not in listings:
            listings[listed] = _listing(listed)
            _SIZES.put(listings[listed])
        yield pattern, _matching(listings[listed], pattern, name, is_filtered=listed == pattern)


def _matching(listing: dict[str, int], pattern: str, name: str, is_filtered: bool) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern] if pattern in listing else []
    names = ((url, url.rpartition("/")[2]) for url in listing)
    # As on a disk, a name that begins with a dot is named by a pattern that does.
    return [
        url
        for url, one in names
        if (is_filtered or fnmatch.fnmatchcase(one, name)) and (name.startswith(".") or not one.startswith("."))
    ]


def _answer(url: str, question: Callable[[Request], T], doing: str = "read") -> T:
    """`requests.answer`, whose errors are the source's."""
    try:
        return requests.answer(url, question, doing)
    except RequestError as error:
        raise _of_source(error) from error


def _tried(url: str, question: Callable[[Request], T], total_s: float, try_s: float, tries: int) -> T:
    """`requests.tried`, whose errors are the source's."""
    try:
        return requests.tried(url, question, total_s, try_s, tries)
    except RequestError as error:
        raise _of_source(error) from error


def _of_source(error: RequestError) -> SourceError:
    return error if isinstance(error, SourceError) else SourceError(f"data: {error}")


def _is_object(url: str) -> bool:
    try:
        info = _answer(url, lambda request: request.ask("info"))
    except FileNotFoundError:
        return False
    if info["type"] == "file":
        _SIZES.put({url: _size_in(info, url)})
    return info["type"] == "file"


def _listing(pattern: str) -> dict[str, int]:
    """Sizes of the objects of a folder, or of those that match a pattern for folders, by URL."""
    root = pattern
    while glob.has_magic(root):
        root = parent(root)

    def question(request: Request) -> tuple[str, list[dict[str, Any]]]:
        top = request.file_system._strip_protocol(root)
        if root == pattern:
            return top, list(request.ask("ls", detail=True))
        return top, list(request.ask("glob", detail=True).values())

    try:
        top, rows = _answer(pattern, question, "listed")
    except FileNotFoundError:
        return {}
    # The file system names objects without the protocol; URLs begin as the pattern does.
    start = root if root.endswith("/") else f"{root}/"
    names = [(row["name"].removeprefix(top).lstrip("/"), row) for row in rows if row["type"] == "file"]
    return {start + name: _size_in(row, start + name) for name, row in names if name and not name.endswith("/")}


def size(url: str) -> int:
    """Bytes of an object, as it was last listed or else asked for now. Raises SourceError where it is gone."""
    cached = _SIZES.get(url)
    if cached is not None:
        return cached
    try:
        return _answer(url, lambda request: _size_in(request.ask("info"), url))
    except FileNotFoundError as error:
        raise _gone(url) from error


def _size_in(info: dict[str, Any], url: str) -> int:
    if not isinstance(info["size"], int):
        raise SourceError(f"data: the server of '{url}' does not say its size; copy it to a disk or a bucket.")
    return info["size"]


def read(url: str, offset: int, length: int) -> bytes:
    """A range of an object.

    Raises SourceError where the object is gone or ends before it, or its bucket does not answer; ValueError where this
    range cannot be read and the bucket answers otherwise, which costs the record.
    """
    end = offset + length

    def question(request: Request) -> bytes:
        data = request.ask("cat_file", start=offset, end=end)
        if len(data) < length:
            _check_end(_size_in(request.ask("info"), url), end, url)
        if len(data) != length:
            raise OSError(f"{len(data):,} of {length:,} bytes came")
        return data

    # A quarter of the time is left to find out whether the bucket answers.
    total, tries = requests.TIMEOUT_S, requests.TRIES
    started = time.monotonic()
    try:
        try:
            return _tried(url, question, total * 3 / 4, total * 3 / 4 / tries, tries)
        except FailedError as error:
            cause = str(error)
        left = total - (time.monotonic() - started)
        _check_end(_tried(url, lambda request: _size_in(request.ask("info"), url), left, left, 1), end, url)
    except FileNotFoundError as error:
        raise _gone(url) from error
    except FailedError:
        raise _of_source(requests.unanswered(url, "read", cause)) from None
    raise ValueError(f"bytes {offset:,} to {end:,} of '{url}' cannot be read ({cause}); copy it again.")


def _check_end(have: int, end: int, url: str) -> None:
    if have < end:
        _SIZES.forget(url)
        raise SourceError(f"data: '{url}' has {have:,} bytes and was to have {end:,}; copy it again.")


def _gone(url: str) -> SourceError:
    return SourceError(f"data: no file '{url}'; it was there before: copy it back, or index its source again.")


def read_whole(url: str) -> bytes | None:
    """An object; None where there is none. Raises SourceError where its bucket does not answer."""
    try:
        return _answer(url, lambda request: request.ask("cat_file"))
    except FileNotFoundError:
        return None


def write_whole(url: str, data: bytes) -> None:
    """One upload, after which the object is there, or what was there before. Raises SourceError where it fails."""
    try:
        _answer(url, lambda request: request.ask("pipe_file", data), "written")
    except FileNotFoundError as error:
        raise SourceError(f"data: '{url}' cannot be written: no such bucket; check its name.") from error
    _SIZES.put({url: len(data)})


def remove(url: str) -> None:
    """Deletes an object, where it is there. Raises SourceError where that fails."""
    with contextlib.suppress(FileNotFoundError):
        _answer(url, lambda request: request.ask("rm_file"), "deleted")
    _SIZES.forget(url)


def names_in(folder: str) -> set[str]:
    """Names of the objects in a folder. Raises SourceError where the bucket does not answer."""
    return {url.rpartition("/")[2] for url in _listing(folder.rstrip("/"))}


def exists(url: str) -> bool:
    """Whether there is an object or a folder. Raises SourceError where the bucket does not answer."""
    try:
        _answer(url, lambda request: request.ask("info"))
    except FileNotFoundError:
        return False
    return True


def stream(url: str) -> io.BufferedReader:
    """An object from its beginning on, CHUNK_BYTES a request. What is passed over by `seek` is not asked for.

    Raises SourceError where it is gone; reading raises it where a part of it cannot be read.
    """
    return io.BufferedReader(_Object(url, size(url)), CHUNK_BYTES)


class _Object(io.RawIOBase):
    """An object whose parts are requests."""

    def __init__(self, url: str, size: int):
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        if length:
            try:
                buffer[:length] = read(self._url, self._at, length)
            except SourceError:
                raise
            except ValueError as error:
                raise SourceError(str(error)) from error
        self._at += length
        return length
