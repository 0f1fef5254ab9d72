"""Images that were fetched by URL, in the tars that img2dataset writes, found by the SHA-256 of the URL.

The tars stay as they are: an index beside them, made once, says where the image of a hash lies. It is for reading a
source while it is packed; packed records hold their images, and training looks up nothing.

Source: docs/reference/data.md#img2dataset-output
"""

from collections import Counter
from collections.abc import Callable
import functools
import hashlib
import json
import os
from pathlib import Path
import re
import struct
from typing import NamedTuple

from jaxtyping import Num
import numpy as np

from xgenmm_jax.data.errors import SourceError, shown
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.sorting import MOST_BYTES, HashSort
from xgenmm_jax.data.source_paths import at_home
from xgenmm_jax.data.storage import files, tar_tables, tars
from xgenmm_jax.files import parse_json, read_json, whole_folder

NOTE = "joined.json"
VERSION = 1
FILES = {"hashes": np.dtype("<u8"), "more": np.dtype("<u8"), "tar": np.dtype("<u4"), "offset": np.dtype("<i8")}
FILES |= {"size": np.dtype("<i8")}
"""Arrays of one number an image, sorted by hash: the first and the next 8 bytes of it, which tar, and the sample's
range there. 36 bytes an image; the sample itself says its whole URL."""

WRITTEN_AT_A_TIME = 100_000
_HASH_BYTES = 16
_LOCATION = struct.Struct("<Iqq")
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[str, int, int], None]


class Joined(NamedTuple):
    """images: those of different URLs. left_out: samples of the tars that are none of them, by reason."""

    tars: int
    images: int
    left_out: dict[str, int]


def join(pattern: str, folder: Path, progress: Progress | None = None, most_bytes: int = MOST_BYTES) -> Joined:
    """Makes the index of the tars that match a pattern, in a new folder, which appears whole.

    A sample's JSON says its `hash`, where the list of `data/urls.py` was fetched with that column, or its `url`. Of a
    URL that was fetched twice the first image counts. most_bytes: memory; the rest is kept beside the folder.

    Raises ValueError where the folder is there, SourceError where a tar is cut off.
    """
    if folder.exists():
        raise ValueError(f"data: '{folder}' is there; name a new folder for the index, or delete it.")
    paths = files.matching(pattern, (".tar",))
    paths = paths if files.is_remote(pattern) else tuple(os.path.abspath(path) for path in paths)
    left_out: Counter[str] = Counter()
    with whole_folder(folder, replace=True) as partial:
        sorter, samples = HashSort(partial / "sorting", most_bytes), 0
        for number, path in enumerate(paths):
            for sample in tars.walk(path, ("json",)):
                digest = _hash_of(sample.members.get("json"))
                if digest is None:
                    left_out["no URL in its JSON"] += 1
                elif not sample.suffixes & set(tar_tables.IMAGES):
                    left_out["no image"] += 1
                else:
                    samples += 1
                    sorter.add(digest[:_HASH_BYTES], _LOCATION.pack(number, sample.offset, sample.size))
            if progress is not None:
                progress("tars walked", number + 1, len(paths))
        images = _write(partial, sorter)
        if not images:
            reasons = ", ".join(f"{count:,} have {reason}" for reason, count in left_out.items()) or "there are none"
            raise SourceError(
                f"data: no sample of '{pattern}' is an image of a URL: {reasons}; name img2dataset's tars."
            )
        if samples > images:
            left_out["the URL of another one"] = samples - images
        sizes = [files.size(path) for path in paths]
        note = {"version": VERSION, "images": images, "tars": list(zip(paths, sizes, strict=True))}
        (partial / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
    return Joined(len(paths), images, dict(left_out))


def _hash_of(data: bytes | None) -> bytes | None:
    """The SHA-256 of the URL of a sample by its JSON; None where that does not say it."""
    try:
        row = parse_json(b"" if data is None else data)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    if isinstance(row.get("hash"), str) and _HEXADECIMAL.fullmatch(row["hash"]):
        return bytes.fromhex(row["hash"])
    return hashlib.sha256(row["url"].encode()).digest() if isinstance(row.get("url"), str) else None


def _write(folder: Path, sorter: HashSort) -> int:
    """Writes the arrays; gives how many images they are."""
    count, rows = 0, []

    def append() -> None:
        columns = zip(*rows, strict=True) if rows else [()] * len(FILES)
        for (name, dtype), column in zip(FILES.items(), columns, strict=True):
            with (folder / f"{name}.bin").open("ab") as file:
                file.write(np.array(column, dtype).tobytes())

    for key, value in sorter.sorted():
        rows.append((*struct.unpack(">QQ", key), *_LOCATION.unpack(value)))
        count += 1
        if len(rows) == WRITTEN_AT_A_TIME:
            append()
            rows = []
    append()
    return count


def is_joined(folder: str) -> bool:
    """Whether a folder is an index that `join` wrote."""
    return not files.is_remote(folder) and (at_home(folder) / NOTE).is_file()


class JoinedImages:
    """The images of an index by their URLs. The index is mapped, so processes share its memory.

    Raises SourceError where it is not whole.
    """

    def __init__(self, folder: str):
        self._folder = folder
        path = at_home(folder)
        self._index = _opened(str(path), (path / NOTE).stat().st_mtime_ns)

    def open(self, name: str) -> LazyImage:
        """Raises ValueError where no such image was fetched, or it is damaged, SourceError where a tar changed."""
        if not isinstance(name, str) or not name.lower().startswith(("http://", "https://")):
            raise ValueError(f"image: {shown(name, 300)!r} is no URL, and '{self._folder}' has images by URL alone.")
        digest = hashlib.sha256(name.encode()).digest()
        location = self._index.find(digest)
        if location is None:
            raise ValueError(f"image: '{name[:300]}' is not among the {self._index.count:,} of '{self._folder}'.")
        number, offset, size = location
        tar = self._index.checked_tar(number)
        raw = tars.read_sample(tar, offset, size, f"the image of '{name[:300]}'")
        if _hash_of(raw.fields.get("json")) != digest:
            raise SourceError(f"data: '{tar}' has another image than when it was joined; join its folder again.")
        suffix = next(suffix for suffix in tar_tables.IMAGES if suffix in raw.fields)
        return image_from_bytes(raw.data(suffix), f"'{name[:300]}'", official=True)


class _Index:
    def __init__(self, folder: Path):
        remedy = "delete the folder and join again"
        try:
            note = read_json(folder / NOTE)
            if note["version"] != VERSION:
                raise ValueError(f"version {note['version']}, wanted {VERSION}")
            self.count = int(note["images"])
            self._tars = [(str(path), int(size)) for path, size in note["tars"]]
            self._arrays = {name: _mapped(folder / f"{name}.bin", dtype, self.count) for name, dtype in FILES.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(f"data: '{folder}' is no whole index of fetched images ({error}); {remedy}.") from error
        self._checked: set[int] = set()

    def find(self, digest: bytes) -> tuple[int, int, int] | None:
        """Tar, offset and size of the sample of a hash."""
        first, more = struct.unpack(">QQ", digest[:_HASH_BYTES])
        at = int(np.searchsorted(self._arrays["hashes"], np.uint64(first)))
        while at < self.count and self._arrays["hashes"][at] == first:
            if self._arrays["more"][at] == more:
                return tuple(int(self._arrays[name][at]) for name in ("tar", "offset", "size"))
            at += 1
        return None

    def checked_tar(self, number: int) -> str:
        """The path of a tar. Raises SourceError where it is gone or has other bytes than when it was joined."""
        path, size = self._tars[number]
        if number not in self._checked:
            if (now := files.size(path)) != size:
                raise SourceError(f"data: '{path}' has {now:,} bytes and had {size:,} when it was joined; join again.")
            self._checked.add(number)
        return path


@functools.lru_cache(maxsize=4)
def _opened(folder: str, modified_ns: int) -> _Index:
    """One for all shards of a process. modified_ns: by which an index that was made again is told."""
    return _Index(Path(folder))


def _mapped(path: Path, dtype: np.dtype, count: int) -> Num[np.ndarray, " n"]:
    size = path.stat().st_size
    if count < 1 or size != count * dtype.itemsize:
        raise ValueError(f"'{path.name}' has {size:,} bytes, wanted {count:,} numbers of {dtype.itemsize}")
    return np.memmap(path, dtype, mode="r", shape=(count,))
