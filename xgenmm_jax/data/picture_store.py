"""Drawn pictures on disk: made once by a process of low priority, read where they are there already.

Nothing depends on its progress: who finds no shard draws the picture, with the same pixels.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import functools
import hashlib
import io
import logging
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import PIL
import PIL.Image

from xgenmm_jax.data import parent
from xgenmm_jax.data.places import at_home
from xgenmm_jax.data.records import Picture
from xgenmm_jax.data.shards import BlobReader, write_blobs

LOG = logging.getLogger(__name__)

SHARD_RECORDS = 4096


class PictureStore:
    """Shards of records' pictures under a folder, named `{key}-{shard}.array_record`."""

    def __init__(self, folder: str | Path):
        self.folder = at_home(folder) / fingerprint()
        self._shards: dict[tuple[str, int], BlobReader | None] = {}

    def path(self, key: str, shard: int) -> Path:
        return self.folder / f"{key}-{shard:05d}.array_record"

    def read(self, key: str, index: int, number: int) -> PIL.Image.Image | None:
        """Picture `number` of record `index`; None where its shard is not made yet, or is damaged, which is logged."""
        shard, place = divmod(index, SHARD_RECORDS)
        try:
            if (key, shard) not in self._shards:
                path = self.path(key, shard)
                if not path.exists():
                    return None
                self._shards[key, shard] = BlobReader(path)
            reader = self._shards[key, shard]
            return None if reader is None else _unpack(reader[place], number)
        except (ValueError, IndexError, OSError) as error:
            self._give_up(key, shard, error)
            return None

    def _give_up(self, key: str, shard: int, error: Exception) -> None:
        LOG.warning("pictures: '%s' is not used, its pictures are drawn anew (%s)", self.path(key, shard), error)
        self._shards[key, shard] = None

    def make_shard(self, key: str, shard: int, pictures_of: Callable[[int], Sequence[Picture]], length: int) -> None:
        """Draws one shard of a source of `length` records, unless it is there."""
        path = self.path(key, shard)
        if path.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        first = shard * SHARD_RECORDS
        write_blobs(path, (_pack(pictures_of(i)) for i in range(first, min(first + SHARD_RECORDS, length))))


@functools.cache
def fingerprint() -> str:
    """Names what the pixels depend on: the drawing code, its embedded files, Pillow."""
    here = Path(__file__).parent
    digest = hashlib.sha256(PIL.__version__.encode())
    drawing = [here / "drawings.py", here / "splits.py", *here.glob("synthetic/*.py"), *here.glob("embedded/sprites.*")]
    for path in sorted(drawing):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _pack(pictures: Sequence[Picture]) -> bytes:
    """Count and lengths as int64, then PNGs."""
    blobs = []
    for picture in pictures:
        file = io.BytesIO()
        picture.load().save(file, "PNG", compress_level=1)
        blobs.append(file.getvalue())
    return np.array([len(blobs), *map(len, blobs)], "<i8").tobytes() + b"".join(blobs)


def _unpack(data: bytes, number: int) -> PIL.Image.Image:
    count = int.from_bytes(data[:8], "little")
    lengths = np.frombuffer(data, "<i8", count, 8)
    start = 8 * (1 + count) + int(lengths[:number].sum())
    with PIL.Image.open(io.BytesIO(data[start : start + int(lengths[number])])) as image:
        return image.convert("RGB")


def start_maker(folder: str | Path, sources: Sequence[tuple[str, int, int, str]]) -> subprocess.Popen:
    """Starts the process that draws all shards of these (family, length, seed, split); it ends with its parent.

    It runs at the lowest priority, so that it takes the time that training leaves.
    """
    names = [f"{family}:{length}:{seed}:{split}" for family, length, seed, split in sources]
    return subprocess.Popen([sys.executable, "-m", "xgenmm_jax.data.picture_store", str(folder), *names])


def _sources(names: Sequence[str]) -> Iterator[tuple[str, Callable[[int], Sequence[Picture]], int]]:
    # Imported here: the sources import this module.
    from xgenmm_jax.data import sources

    for name in names:
        family, length, seed, split = name.split(":")
        config = sources.Synthetic(family, int(length), int(seed), split)
        yield sources.store_key(config), functools.partial(sources.pictures_at, config.open()), config.length


def _remove_left_behind(folder: Path) -> None:
    """Removes half-written shards of makers that were killed."""
    for part in folder.glob("*.part"):
        process = int(part.name.split(".")[-2].split("-")[0])
        if not Path(f"/proc/{process}").exists():
            part.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the shards of synthetic sources.")
    parser.add_argument("folder")
    parser.add_argument("sources", nargs="+", metavar="family:length:seed:split")
    arguments = parser.parse_args()
    parent.end_with_parent()
    os.nice(19)
    store, sources = PictureStore(arguments.folder), list(_sources(arguments.sources))
    _remove_left_behind(store.folder)
    shards = [-(-length // SHARD_RECORDS) for _, _, length in sources]
    for shard in range(max(shards)):  # round and round, so that every source has some early
        for (key, pictures_of, length), count in zip(sources, shards, strict=True):
            if shard < count:
                store.make_shard(key, shard, pictures_of, length)


if __name__ == "__main__":
    main()
