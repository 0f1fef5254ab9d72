"""Files that grow: appended to on a disk; in a bucket, which cannot append, written anew some seconds after a change.

In a bucket lines are held in memory and their object is replaced. It is closed at PART_BYTES, and those that follow go
into `metrics.jsonl.2`, `metrics.jsonl.3`, ...: `files.parts`, which whoever reads such a file joins. A kill loses what
came in the last seconds; what a checkpoint is to find again is sent before it is saved (`send_all`).
"""

import abc
import logging
import os
import pathlib
import tempfile
import threading
import weakref

from xgenmm_jax import buckets, files
from xgenmm_jax.paths import Path, is_in_bucket
from xgenmm_jax.requests import RequestError

LOG = logging.getLogger(__name__)

VISIBLE_S = 20.0
"""From a change to its upload. A bucket takes one change a second of an object; others see it within a minute."""

PART_BYTES = 4 * 2**20
"""An object that has become so large is not written again."""


class _Delayed(abc.ABC):
    """Sends what has changed, VISIBLE_S after the first change; an upload that fails is tried again as late."""

    def __init__(self, path: Path):
        self._path = path
        self._turn = threading.Lock()
        """Held while something is sent."""
        self._lock = threading.Lock()
        """Held to look at what is to be sent, and at the timer."""
        self._timer: threading.Timer | None = None
        self._has_failed = False
        _OPEN.add(self)

    def _changed(self) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(VISIBLE_S, self.send)
                self._timer.daemon = True
                self._timer.start()

    def send(self) -> None:
        """Uploads what has changed, if something has. What cannot be uploaded now is told once, and comes later."""
        with self._turn:
            with self._lock:
                if self._timer is None:
                    return
                self._timer.cancel()
                self._timer = None
            try:
                self._upload()
                self._has_failed = False
            except (RequestError, OSError) as error:
                if not self._has_failed:
                    LOG.warning("'%s' is not up to date, and is tried again: %s", self._path, error)
                self._has_failed = True
                self._changed()

    @abc.abstractmethod
    def _upload(self) -> None:
        """Sends it all; called where something has changed."""

    def close(self) -> None:
        self.send()
        _OPEN.discard(self)


_OPEN: "weakref.WeakSet[_Delayed]" = weakref.WeakSet()


def send_all() -> None:
    """Uploads what has changed of everything that is open; nothing where no file grows in a bucket."""
    for one in list(_OPEN):
        one.send()


class Lines:
    """Appends lines to a file.

    stays_open: on a disk the file is opened now, and every write is on the disk when it returns. Otherwise it is made,
    and opened, by the first write and each of the others.
    """

    def __init__(self, path: Path, stays_open: bool = False):
        self._path = path
        self._object = _Object(path) if is_in_bucket(path) else None
        self._file = path.open("a", encoding="utf-8") if stays_open and not self._object else None

    def write(self, lines: str) -> None:
        """lines: each with its newline."""
        if self._object:
            self._object.add(lines.encode())
        elif self._file:
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())  # a mounted bucket shows it to others now, and not when the run ends
        else:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)

    def close(self) -> None:
        if self._object:
            self._object.close()
        if self._file:
            self._file.close()


class _Object(_Delayed):
    """The last part of a file of lines in a bucket."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._parts = files.parts(path) or [path]
        self._data = bytearray(buckets.read(self._parts[-1]) or b"")

    def add(self, data: bytes) -> None:
        with self._lock:
            self._data += data
        self._changed()

    def _upload(self) -> None:
        with self._lock:
            data = bytes(self._data)
        buckets.write(self._parts[-1], data)
        if len(data) >= PART_BYTES:
            with self._lock:
                del self._data[: len(data)]
                is_more = bool(self._data)
            self._parts.append(files.part(self._path, len(self._parts) + 1))
            if is_more:
                self._changed()


class FolderCopy(_Delayed):
    """A folder that a library writes to: `local` is the folder itself, or one on the disk that is copied to the bucket.

    Files that are gone stay in the copy.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        self._own = tempfile.TemporaryDirectory(ignore_cleanup_errors=True) if is_in_bucket(path) else None
        self.local = pathlib.Path(self._own.name) if self._own else path
        self.flush_s = int(VISIBLE_S / 2) if self._own else 120
        """Seconds after which the library is to have written what it holds; 120 is TensorBoard's own number."""
        self._sent: dict[str, tuple[int, int]] = {}

    def changed(self) -> None:
        """Something was written to `local`."""
        if self._own:
            self._changed()

    def _upload(self) -> None:
        for name in files.tree(self.local):
            known = (self.local / name).stat()
            state = known.st_size, known.st_mtime_ns
            if self._sent.get(name) != state:
                buckets.upload(self.local / name, self._path / name)
                self._sent[name] = state

    def close(self) -> None:
        super().close()
        if self._own:
            self._own.cleanup()
