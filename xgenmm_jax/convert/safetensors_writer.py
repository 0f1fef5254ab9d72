"""Writes safetensors shards whose tensors come in any order and in pieces, without holding them."""

from collections.abc import Mapping, Sequence
import contextlib
import json
import os
import pathlib
import tempfile
import threading
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np

from xgenmm_jax import files
from xgenmm_jax.convert.rules import Shape
from xgenmm_jax.paths import Path, is_in_bucket

SHARD_BYTES = 5_000_000_000
"""Most bytes of a shard, as transformers' "5GB"."""
NAMES = {np.dtype(np.float32): "F32", np.dtype(ml_dtypes.bfloat16): "BF16"}


def plan_shards(shapes: Mapping[str, Shape], itemsize: int, limit: int = SHARD_BYTES) -> dict[str, list[str]]:
    """File to names, in their order; a tensor above the limit has a file of its own."""
    shards: list[list[str]] = []
    size = 0
    for name, shape in shapes.items():
        count = int(np.prod(shape)) * itemsize
        if not shards or size + count > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += count
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": names for number, names in enumerate(shards, 1)}


def index(shards: Mapping[str, Sequence[str]], shapes: Mapping[str, Shape], itemsize: int) -> dict[str, Any]:
    """What `model.safetensors.index.json` holds."""
    return {
        "metadata": {"total_size": sum(int(np.prod(shape)) for shape in shapes.values()) * itemsize},
        "weight_map": {name: file for file, names in shards.items() for name in names},
    }


class SafetensorsWriter:
    """`model.safetensors`, or shards with their index, in a folder. `write` may be called from several threads.

    A bucket takes a file as a whole and from its beginning on. So shards of one are written in a temporary folder, and
    each is copied to its place and deleted when its last tensor is whole: tensors come in nearly the order of shards,
    so one or two of these lie on the disk at a time (TMPDIR).
    """

    def __init__(self, folder: Path, shapes: Mapping[str, Shape], dtype: np.dtype, limit: int = SHARD_BYTES):
        self._dtype, self._shapes = np.dtype(dtype), shapes
        self._place: dict[str, tuple[_Shard, int]] = {}
        self._left = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        self._turn = threading.Lock()
        self._close = contextlib.ExitStack()
        shards = plan_shards(shapes, self._dtype.itemsize, limit)
        with contextlib.ExitStack() as stack:
            local = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) if is_in_bucket(folder) else folder
            for file, names in shards.items():
                shard = _Shard(local / file, folder / file, set(names))
                stack.callback(shard.close)
                self._begin(shard, names)
            if len(shards) > 1:
                text = json.dumps(index(shards, shapes, self._dtype.itemsize), indent=2, sort_keys=True)
                files.write_whole(folder / "model.safetensors.index.json", text + "\n")
            self._close = stack.pop_all()

    def _begin(self, shard: "_Shard", names: list[str]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        begins = {}
        for name in names:
            begins[name], end = end, end + int(np.prod(self._shapes[name])) * self._dtype.itemsize
            header[name] = {
                "dtype": NAMES[self._dtype],
                "shape": list(self._shapes[name]),
                "data_offsets": [begins[name], end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        # The data starts at a multiple of eight bytes, so that mapped tensors are aligned.
        text += b" " * (-len(text) % 8)
        _write(shard.descriptor, len(text).to_bytes(8, "little") + text, 0)
        start = 8 + len(text)
        os.truncate(shard.descriptor, start + end)
        for name, begin in begins.items():
            self._place[name] = (shard, start + begin)

    def write(self, name: str, array: np.ndarray, part: int = 0) -> None:
        """A tensor, or the `part`-th of its equal pieces along the first axis. array: C-contiguous."""
        assert array.dtype == self._dtype and array.shape[1:] == self._shapes[name][1:], (name, array.shape)
        shard, start = self._place[name]
        _write(shard.descriptor, memoryview(array.reshape(-1).view(np.uint8)), start + part * array.nbytes)
        with self._turn:
            self._left[name] -= array.size
            if not self._left[name]:
                shard.unwritten.discard(name)
            is_whole = not shard.unwritten
        if is_whole:
            shard.put_in_place()

    def __enter__(self) -> "SafetensorsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._close.close()
        unwritten = [name for name, left in self._left.items() if left]
        assert kind is not None or not unwritten, f"export: never written whole: {unwritten[:3]}"


class _Shard:
    """A file that is written here and belongs there. unwritten: tensors that are not whole yet."""

    def __init__(self, here: pathlib.Path, there: Path, unwritten: set[str]):
        self._here, self._there, self.unwritten = here, there, unwritten
        self.descriptor = os.open(here, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def put_in_place(self) -> None:
        if self._here != self._there:
            files.copy(self._here, self._there)
            self._here.unlink()

    def close(self) -> None:
        os.close(self.descriptor)


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while len(view):
        count = os.pwrite(descriptor, view[: 1 << 30], offset)
        view, offset = view[count:], offset + count
