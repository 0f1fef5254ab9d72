"""A file by path or URL as a seekable Python file, for libraries that want one; every read is one of a range."""

import io

from xgenmm_jax.data.storage import files

READ_AHEAD = 1 << 20
"""Bytes that a smaller read fetches: headers of pages and ends of footers are read in small steps."""


class RangeFile(io.RawIOBase):
    """A file for reading at any place, not from two threads at once. Raises SourceError where it is gone or cut."""

    def __init__(self, path: str):
        super().__init__()
        self._path, self._size = path, files.size(path)
        self._at, self._start, self._ahead = 0, 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer at the end of the file alone; -1 reads to the end."""
        rest = max(0, self._size - self._at)
        size = rest if size is None or size < 0 else min(size, rest)
        first = self._at - self._start
        if not 0 <= first <= len(self._ahead) - size:
            # What is longer is handed on and not kept.
            self._start, first = self._at, 0
            self._ahead = files.read(self._path, self._at, min(max(size, READ_AHEAD), rest))
        data = self._ahead[first : first + size]
        if len(self._ahead) > READ_AHEAD:
            self._ahead = b""
        self._at += size
        return data

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
