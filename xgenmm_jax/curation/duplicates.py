"""Images that look alike, by a hash of what they look like at 16 x 16 cells.

Each cell says whether the image grows brighter to the next one (a difference hash), 256 bits in all. An image that
differs in at most DISTANCE bits from an earlier one that stays is left out. Measured: photographs at half their size or
as JPEG of quality 50 differ from themselves in 0 to 4 bits, scanned pages in 4 to 11, other photographs in 113 and
more, pages of other words in one layout in 22 and more.
"""

import io
import json
from pathlib import Path

from jaxtyping import UInt8
import numpy as np
import PIL.Image

from xgenmm_jax import files
from xgenmm_jax.curation.images import Unread, opened_shard, read, unopened
from xgenmm_jax.curation.makers import Maker
from xgenmm_jax.curation.shards import NOTES, duplicates_file
from xgenmm_jax.data.sharded import ShardedSource

CELLS = 16
DISTANCE = 10
"""Bits of 256."""
MOST_COMPARED = 64
"""Images of one band that are compared, the last ones: blank pages share a band by the million."""
HASHES = "hashes"


def difference_hash(pixels: PIL.Image.Image) -> UInt8[np.ndarray, "32"]:
    """256 bits of an image, row by row: True where a cell is brighter than the one to its left."""
    gray = np.asarray(pixels.convert("L").resize((CELLS + 1, CELLS), PIL.Image.Resampling.BOX), np.int16)
    return np.packbits(gray[:, 1:] > gray[:, :-1])


def hashes_file(folder: Path, number: int) -> Path:
    return folder / NOTES / HASHES / f"{number:06}.npz"


class ShardHasher:
    """What one process does: the hashes of a shard's images, written whole.

    Of those that may get a row: the larger copy of an image that is too small for one is no duplicate.
    """

    def __init__(self, source: ShardedSource, maker: Maker, folder: Path):
        self._source, self._maker, self._folder = source, maker, folder
        index = source.source_index()
        self._paths, self._names = index.paths, index.names

    def run(self, number: int) -> None:
        """A shard that cannot be read has no hashes here; making it tells why."""
        ordinals, keys, hashes = [], [], []
        try:
            shard, _ = opened_shard(self._source, self._paths[number])
            try:
                for ordinal, one in enumerate(unopened(self._source, shard, self._names[number])):
                    got = read(one, number, ordinal) if not isinstance(one, Unread) else one
                    if not isinstance(got, Unread) and self._maker.refusal(got.pixels.size) is None:
                        ordinals.append(ordinal)
                        keys.append(got.key)
                        hashes.append(difference_hash(got.pixels))
            finally:
                shard.close()
        except ValueError:  # SourceError is one
            return
        buffer = io.BytesIO()
        bits = np.array(hashes, np.uint8).reshape(-1, CELLS * CELLS // 8)
        np.savez(buffer, ordinals=np.array(ordinals, np.int64), keys=np.array(keys, np.str_), hashes=bits)
        files.write_whole(hashes_file(self._folder, number), buffer.getvalue())


def note_duplicates(folder: Path, shards: int) -> int:
    """Writes of each shard which images are left out, by the hashes of all; gives how many.

    Takes about a kilobyte of memory an image that stays.
    """
    known = _Known()
    count = 0
    for number in range(shards):
        left_out = {}
        path = hashes_file(folder, number)
        if path.is_file():
            with np.load(path, allow_pickle=False) as arrays:
                columns = (arrays["ordinals"].tolist(), arrays["keys"].tolist(), arrays["hashes"])
            for ordinal, key, bits in zip(*columns, strict=True):
                if (alike := known.like(bits, key)) is not None:
                    left_out[str(ordinal)] = alike
        count += len(left_out)
        files.write_whole(duplicates_file(folder, number), json.dumps(left_out, ensure_ascii=False) + "\n")
    return count


class _Known:
    """The images that stay. Two that differ in DISTANCE bits agree in one of DISTANCE + 1 bands of bits at least."""

    def __init__(self):
        self._keys: list[str] = []
        self._bits: list[int] = []
        self._of_band: dict[tuple[int, int], list[int]] = {}

    def like(self, hashed: UInt8[np.ndarray, "32"], key: str) -> str | None:
        """What an image looks like; None where it is new, and stays."""
        bits = int.from_bytes(hashed.tobytes(), "big")
        bands = [(band, bits & mask) for band, mask in enumerate(_MASKS)]
        for number in dict.fromkeys(number for band in bands for number in self._of_band.get(band, ())):
            if (self._bits[number] ^ bits).bit_count() <= DISTANCE:
                return self._keys[number]
        for band in bands:
            of_band = self._of_band.setdefault(band, [])
            of_band.append(len(self._bits))
            del of_band[:-MOST_COMPARED]
        self._keys.append(key)
        self._bits.append(bits)
        return None


# A band's bits lie all over the image: those of one place agree wherever a margin is blank.
_MASKS = [sum(1 << bit for bit in range(band, CELLS * CELLS, DISTANCE + 1)) for band in range(DISTANCE + 1)]
