"""What several threads read, kept within bounds: each thing is read once, by the first who asks."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedCache(Generic[T]):
    """The things that were asked for last, up to a number of bytes; the very last is kept whatever its size.

    size_of: bytes that a thing takes.
    """

    def __init__(self, most_bytes: int, size_of: Callable[[T], int]):
        self._most_bytes, self._size_of = most_bytes, size_of
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._coming: dict[Hashable, Future] = {}
        self._bytes = 0

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """What `read` gives, called unless it is kept. Raises what it raises, to all who wait; the next tries again."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            coming = self._coming.get(key)
            is_first = coming is None
            if is_first:
                coming = self._coming[key] = Future()
        if not is_first:
            return coming.result()
        try:
            thing = read()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            coming.set_exception(error)
            raise
        with self._lock:
            del self._coming[key]
            self._keep(key, thing)
        coming.set_result(thing)
        return thing

    def _keep(self, key: Hashable, thing: T) -> None:
        self._kept[key] = thing
        self._bytes += self._size_of(thing)
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= self._size_of(oldest)
