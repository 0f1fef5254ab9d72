"""Bytes of a file or of a bucket's object from any place on, into memory that is there already."""

from concurrent.futures import ThreadPoolExecutor
import os
import pathlib

import numpy as np

from xgenmm_jax import buckets
from xgenmm_jax.data.storage import remote
from xgenmm_jax.paths import BucketPath, Path, is_in_bucket

PIECE_BYTES = 8 * 2**20
"""Of one request. Each has the time of its own, a try of it 15 s, so a slice may be of any size and a network slow."""
REQUESTS = 4
"""At once, of one file."""


class FileRanges:
    """Read and not mapped."""

    def __init__(self, path: pathlib.Path):
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def read_into(self, array: np.ndarray, start: int) -> bool:
        target = _bytes_of(array)
        while len(target):
            count = os.preadv(self._descriptor, [target[: 1 << 30]], start)
            if count == 0:
                return False
            target, start = target[count:], start + count
        return True

    def close(self) -> None:
        os.close(self._descriptor)


class ObjectRanges:
    """Read by requests of PIECE_BYTES, each of which is repeated and ends in time; nothing is kept of them."""

    def __init__(self, path: BucketPath):
        self._url = str(path)
        self.size = buckets.size(path)
        self._pool = ThreadPoolExecutor(REQUESTS, "range")

    def read_into(self, array: np.ndarray, start: int) -> bool:
        target = _bytes_of(array)
        if start + len(target) > self.size:
            return False

        def fetch(first: int) -> None:
            last = min(first + PIECE_BYTES, len(target))
            target[first:last] = remote.read(self._url, start + first, last - first)

        for _ in self._pool.map(fetch, range(0, len(target), PIECE_BYTES)):
            pass  # raises what a request did
        return True

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


ByteRanges = FileRanges | ObjectRanges
"""An open file. `read_into(array, start)` fills an array with the bytes from `start` on, in any thread; False where the
file ends before. size: in bytes."""


def open_ranges(path: Path) -> ByteRanges:
    """The file at a path. Raises OSError where it cannot be opened, ValueError where a bucket does not answer."""
    return ObjectRanges(path) if is_in_bucket(path) else FileRanges(path)


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))
