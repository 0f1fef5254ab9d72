"""The sizes of one shard's records as the index keeps them: written once, read when the order reaches the shard."""

from collections.abc import Mapping
import io
import json
from typing import Any, NamedTuple
import zipfile

from jaxtyping import Int64
import numpy as np

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.index import shapes as shapes_
from xgenmm_jax.data.index.shapes import BAD, Shapes

_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, OverflowError, RuntimeError, zipfile.BadZipFile)
"""What zipfile and numpy raise for a file that is not as it was written; RuntimeError where bits say "encrypted"."""


class ShardSizes(NamedTuple):
    """Of each record of a shard the shapes of all its choices, and why a record has none.

    choice_ends: where each record's choices end in `shapes`; a record that is BAD has one. bad: by record number, the
    reason (one of few) and the error. dropped: images that were left out of records that are used, in all.
    """

    shapes: Shapes
    choice_ends: Int64[np.ndarray, " records"]
    bad: dict[int, tuple[str, str]]
    dropped: int = 0

    @property
    def records(self) -> int:
        return len(self.choice_ends)


def to_bytes(sizes: ShardSizes, fingerprint: str) -> bytes:
    """A shard's sizes as a file: 6 bytes a caption. fingerprint: of what measured them, compared when they are read."""
    shapes, arrays = sizes.shapes, {}
    arrays["kinds"] = _constant(shapes.kinds)
    arrays["pieces"] = shapes.pieces
    arrays["image_px"] = shapes.image_px
    # Numbers of pieces, images and choices, which are 1 for every caption: one number stands for all of them then.
    for name, ends in (("piece", shapes.piece_ends), ("image", shapes.image_ends), ("choice", sizes.choice_ends)):
        arrays[f"{name}_counts"] = _constant(_smallest(np.diff(ends, prepend=0)))
    rest = {
        "fingerprint": fingerprint,
        "records": sizes.records,
        "samples": shapes.count,
        "bad": [[number, *why] for number, why in sorted(sizes.bad.items())],
        "dropped": sizes.dropped,
    }
    arrays["rest"] = np.frombuffer(json.dumps(rest).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def from_bytes(data: bytes, name: str, fingerprint: str) -> ShardSizes:
    """Raises SourceError where the file is damaged, or was measured by something else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            rest = json.loads(arrays["rest"].tobytes())
            kinds = _spread(arrays["kinds"], rest["samples"])
            ends = {
                name: np.cumsum(_spread(arrays[f"{name}_counts"], rest[of]), dtype=np.int64)
                for name, of in (("piece", "samples"), ("image", "samples"), ("choice", "records"))
            }
            shapes = Shapes(kinds, arrays["pieces"], ends["piece"], arrays["image_px"], ends["image"])
        bad = {int(number): (str(reason), str(detail)) for number, reason, detail in rest["bad"]}
        sizes, measured_by, dropped = ShardSizes(shapes, ends["choice"], bad), rest["fingerprint"], int(rest["dropped"])
        lengths = [
            (len(shapes.pieces), ends["piece"]),
            (len(shapes.image_px), ends["image"]),
            (shapes.count, ends["choice"]),
        ]
        if any(length != (int(end[-1]) if len(end) else 0) for length, end in lengths):
            raise ValueError("its parts have other lengths than it says")
    except _DAMAGED as error:
        raise SourceError(f"data: '{name}' holds no sizes ({error}); delete it and index its source again.") from error
    if measured_by != fingerprint:
        raise SourceError(f"data: '{name}' was measured by another reader or tokenizer; index its source again.")
    return sizes._replace(dropped=dropped)


def arrays_to_bytes(arrays: Mapping[str, np.ndarray], rest: Any) -> bytes:
    """Named arrays of numbers and a value of JSON as a file."""
    file = io.BytesIO()
    np.savez(file, **arrays, rest=np.frombuffer(json.dumps(rest).encode(), np.uint8))
    return file.getvalue()


def arrays_from_bytes(data: bytes, name: str) -> tuple[dict[str, np.ndarray], Any]:
    """What `arrays_to_bytes` took. Raises SourceError where the file is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        return arrays, json.loads(arrays.pop("rest").tobytes())
    except _DAMAGED as error:
        raise SourceError(f"data: '{name}' is damaged ({error}); delete it and index its source again.") from error


def choose(sizes: ShardSizes, records: Int64[np.ndarray, " n"], choices: Int64[np.ndarray, " n"]) -> Shapes:
    """The shapes of these records of the shard, of each the choice with this number."""
    starts = np.concatenate([np.zeros(1, np.int64), sizes.choice_ends[:-1]])
    return sizes.shapes.take(starts[records] + choices)


def choice_counts(sizes: ShardSizes, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """How many texts each of these records has to choose from."""
    return np.diff(sizes.choice_ends, prepend=0)[records]


def nbytes(sizes: ShardSizes) -> int:
    """Memory that a shard's sizes take."""
    return sum(array.nbytes for array in (*sizes.shapes, sizes.choice_ends))


def bad_shapes(count: int) -> Shapes:
    """Of records none of which gives a sample."""
    return shapes_.empty_shapes()._replace(
        kinds=np.full(count, BAD, np.uint8), piece_ends=np.zeros(count, np.int64), image_ends=np.zeros(count, np.int64)
    )


def _constant(array: np.ndarray) -> np.ndarray:
    """One number where all are the same."""
    return array[:1] if len(array) > 1 and (array == array[0]).all() else array


def _spread(array: np.ndarray, count: int) -> np.ndarray:
    if len(array) == 1 and count != 1:
        return np.repeat(array, count)
    if len(array) != count:
        raise ValueError(f"{len(array)} numbers for {count}")
    return array


def _smallest(counts: np.ndarray) -> np.ndarray:
    return counts.astype(np.min_scalar_type(int(counts.max()) if len(counts) else 0))
