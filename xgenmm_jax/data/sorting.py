"""More keys than fit into memory, each once and in order: kept on a disk by their first bytes, sorted part by part."""

from collections.abc import Iterator
from pathlib import Path
import shutil
import struct

MOST_BYTES = 512 << 20
"""Memory of the keys and values that are held at a time, in all."""
PER_ITEM = 200
"""Bytes that Python takes for an item besides its key and value."""

_LENGTHS = struct.Struct("<BI")
_SHARE = 5  # a file of short items takes so many times its size in memory
_MOST_DEPTH = 8


class HashSort:
    """Keys of equal length, hashes, with a value each; of a key that is added again the first value stays.

    folder: for files while it works; `sorted` deletes them. Each item is written once or a few times.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES, depth: int = 0):
        self._folder, self._most_bytes, self._depth = folder, most_bytes, depth
        self._held: dict[bytes, bytes] = {}
        self._bytes = 0
        self._has_files = False

    def add(self, key: bytes, value: bytes) -> None:
        """Raises OSError where the disk is full."""
        if key in self._held:
            return
        self._held[key] = value
        self._bytes += len(key) + len(value) + PER_ITEM
        if self._bytes >= self._most_bytes:
            self._write()

    def sorted(self) -> Iterator[tuple[bytes, bytes]]:
        """Each key once with its value, in the order of the keys. To be called once."""
        if not self._has_files:
            yield from sorted(self._held.items())
            return
        self._write()
        for number in range(256):
            path = self._folder / f"{number:02x}"
            if not path.is_file():
                continue
            is_large = path.stat().st_size * _SHARE > self._most_bytes
            # Keys that agree in so many bytes are one key: it is held once, however often it stands in the file.
            part = HashSort(self._folder / f"{number:02x}-parts", self._most_bytes, self._depth + 1)
            if not is_large or self._depth >= _MOST_DEPTH:
                held: dict[bytes, bytes] = {}
                for key, value in _items(path):
                    held.setdefault(key, value)
                path.unlink()
                yield from sorted(held.items())
                continue
            for key, value in _items(path):
                part.add(key, value)
            path.unlink()
            yield from part.sorted()
        shutil.rmtree(self._folder)

    def _write(self) -> None:
        parts: dict[int, list[bytes]] = {}
        for key, value in self._held.items():
            parts.setdefault(key[self._depth], []).append(_LENGTHS.pack(len(key), len(value)) + key + value)
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, items in parts.items():
            with (self._folder / f"{number:02x}").open("ab") as file:
                file.writelines(items)
        self._held, self._bytes, self._has_files = {}, 0, True


def _items(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with path.open("rb") as file:
        while head := file.read(_LENGTHS.size):
            key_length, length = _LENGTHS.unpack(head)
            yield file.read(key_length), file.read(length)
