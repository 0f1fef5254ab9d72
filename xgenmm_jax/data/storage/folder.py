"""Folders of files: a record is a file that a pattern names, with the files beside it that share its name."""

from collections.abc import Iterator
from dataclasses import dataclass
import fnmatch
import functools
import glob
import os
import stat
from typing import ClassVar, NamedTuple

import numpy as np

from xgenmm_jax.data import source_paths
from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.images import open_image
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.storage import files, tar_tables
from xgenmm_jax.data.storage.base import Located, Raw, Refused

MOST_BYTES = 256 << 20
"""A longer file is refused, since it is read whole."""

VECTOR = (".svg", ".svgz")


@dataclass(frozen=True)
class Folder:
    """Files that match a pattern, "pages/*.html", "stamps/**/*.png"; a shard is a folder, its records in name order.

    beside: ends of the names of files that a record needs, ("txt",): "clownfish.txt" beside "clownfish.png".

    A record's fields: "path" below the pattern's folder, which ends before its first wildcard; "data", the file's
    bytes; and by their ends the bytes of the files beside it. `Raw.image` opens an image by its path from the file's
    own folder, which may not lead out of the pattern's folder.

    On disks alone; a bucket is mounted, or packed.
    """

    pattern: str
    beside: tuple[str, ...] = ()

    PATH_FIELDS: ClassVar[tuple[str, ...]] = ("pattern",)

    def shards(self) -> tuple[str, ...]:
        """Full paths of the folders that hold a file which matches."""
        if files.is_remote(self.pattern):
            raise SourceError(f"data: '{self.pattern}' is a URL; mount the bucket and name the path.")
        paths = glob.iglob(source_paths.literal_first(self.pattern), recursive=True)
        folders = sorted({os.path.abspath(os.path.dirname(path)) for path in paths if os.path.isfile(path)})
        if not folders:
            raise SourceError(f"data: no file matches '{self.pattern}'; check the path.")
        return tuple(folders)

    def size(self, shard: str) -> int:
        """Bytes of its records, files beside them included."""
        return sum(entry.size for entry in self._entries(shard) if not entry.reason)

    def locate(self, shard: str) -> Located:
        """Refuses vector graphics, files that lack one beside them, and what is no file of at most MOST_BYTES."""
        entries = list(self._entries(shard))
        refused = tuple(Refused(ascii(entry.name)[1:-1][:300], entry.reason) for entry in entries if entry.reason)
        return Located(len(entries) - len(refused), _arrays(entries), refused)

    def open(
        self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> "FolderShard":
        """Raises SourceError where a field is none of its fields, or the folder holds other files than were located."""
        there = ("path", "data", *self.beside)
        if missing := [name for name in fields if name not in there]:
            raise SourceError(
                f"data: records of '{shard}' have {', '.join(map(repr, there))} and no {missing[0]!r}; name the ends "
                "of files beside them, beside=."
            )
        entries = [entry for entry in self._entries(shard) if not entry.reason]
        if any(not np.array_equal(array, located.arrays.get(name)) for name, array in _arrays(entries).items()):
            raise SourceError(f"data: '{shard}' holds other files than when it was indexed; index its source again.")
        return FolderShard(self._top(), shard, [entry.name for entry in entries], self.beside)

    def _top(self) -> str:
        """The pattern's folder, as a full path."""
        top, parts = "", os.path.abspath(source_paths.at_home(self.pattern)).split(os.sep)[1:-1]
        for part in parts:
            if glob.has_magic(part) and not os.path.isdir(f"{top}{os.sep}{part}"):
                break
            top += f"{os.sep}{part}"
        return top or os.sep

    def _entries(self, shard: str) -> Iterator["_Entry"]:
        """The files of a shard that match, by name; each is asked for its size once."""
        name_pattern = os.path.basename(self.pattern)
        try:
            listed = {entry.name: entry for entry in os.scandir(shard)}
        except OSError as error:
            why = error.strerror or error
            raise SourceError(f"data: '{shard}' cannot be listed ({why}); check the path.") from error
        for name in sorted([name_pattern] if name_pattern in listed else fnmatch.filter(listed, name_pattern)):
            hidden = name.startswith(".") and not name_pattern.startswith(".")
            if hidden or name.endswith(files.UNFINISHED) or listed[name].is_dir():
                continue
            size, reason = 0, None
            for part in (name, *(_beside(name, end) for end in self.beside)):
                more, reason = _size(listed.get(part), "" if part == name else part.rpartition(".")[2])
                if reason:
                    break
                size += more
            if name.lower().endswith(VECTOR):
                reason = "a vector graphic, which has no pixels"
            if not name.isprintable() or any(0xD800 <= ord(letter) < 0xE000 for letter in name):
                reason = "a name that is no text"
            yield _Entry(name, size, reason)


class _Entry(NamedTuple):
    name: str
    size: int
    reason: str | None


def _size(entry: os.DirEntry | None, end: str) -> tuple[int, str | None]:
    """Bytes of a file, or why it is none. end: of a file beside a record."""
    if entry is None:
        return 0, f"no file of .{end} beside it"
    try:
        info = entry.stat()
    except OSError:
        return 0, "a file that cannot be had"
    if not stat.S_ISREG(info.st_mode):
        return 0, "a device"
    return info.st_size, f"more than {MOST_BYTES >> 20} MB" if info.st_size > MOST_BYTES else None


def _beside(name: str, end: str) -> str:
    return f"{os.path.splitext(name)[0]}.{end}"


def _arrays(entries: list[_Entry]) -> dict[str, np.ndarray]:
    """What tells a changed folder: a hash of each record's name, and its bytes."""
    readable = [entry for entry in entries if not entry.reason]
    sizes = np.array([entry.size for entry in readable], np.int64)
    return {"name": tar_tables.hashes([entry.name for entry in readable]), "size": sizes}


class FolderShard:
    """Files of one folder by number."""

    def __init__(self, top: str, folder: str, names: list[str], beside: tuple[str, ...]):
        self._top, self._folder, self._names, self._beside = top, folder, names, beside

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> Raw:
        """Raises SourceError where a file is gone, RecordError where it has become too long."""
        name = self._names[index]
        key = os.path.relpath(os.path.join(self._folder, name), self._top).replace(os.sep, "/")
        fields: dict[str, bytes | str] = {"path": key}
        for field, part in (("data", name), *((end, _beside(name, end)) for end in self._beside)):
            path = os.path.join(self._folder, part)
            if (length := files.size(path)) > MOST_BYTES:
                raise RecordError(key, f"it has {length:,} bytes, more than {MOST_BYTES:,}")
            fields[field] = files.read(path, 0, length)
        return Raw(key, fields, functools.partial(_image, self._top, self._folder))

    def close(self) -> None:
        """Nothing is held open."""


def _image(top: str, folder: str, name: str) -> LazyImage:
    if "\0" in name or len(name) > 4096:
        raise ValueError(f"image: the name {name[:100]!r} is none of a file; write its place in '{top}'.")
    return open_image(source_paths.inside(top, os.path.join(folder, name.lstrip("/"))), official=True)
