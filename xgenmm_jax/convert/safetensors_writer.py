"""Writes safetensors shards whose tensors come in any order and in pieces, without holding them."""

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np

from xgenmm_jax.convert.rules import Shape

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
    """`model.safetensors`, or shards with their index, in a folder. `write` may be called from several threads."""

    def __init__(self, folder: Path, shapes: Mapping[str, Shape], dtype: np.dtype, limit: int = SHARD_BYTES):
        self._dtype, self._shapes = np.dtype(dtype), shapes
        self._place: dict[str, tuple[int, int]] = {}
        self._left = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        self._files: list[int] = []
        shards = plan_shards(shapes, self._dtype.itemsize, limit)
        for file, names in shards.items():
            self._open(folder / file, names)
        if len(shards) > 1:
            text = json.dumps(index(shards, shapes, self._dtype.itemsize), indent=2, sort_keys=True)
            (folder / "model.safetensors.index.json").write_text(text + "\n", encoding="utf-8")

    def _open(self, file: Path, names: list[str]) -> None:
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
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._files.append(descriptor)
        _write(descriptor, len(text).to_bytes(8, "little") + text, 0)
        start = 8 + len(text)
        os.truncate(descriptor, start + end)
        for name, begin in begins.items():
            self._place[name] = (descriptor, start + begin)

    def write(self, name: str, array: np.ndarray, part: int = 0) -> None:
        """A tensor, or the `part`-th of its equal pieces along the first axis. array: C-contiguous."""
        assert array.dtype == self._dtype and array.shape[1:] == self._shapes[name][1:], (name, array.shape)
        descriptor, start = self._place[name]
        _write(descriptor, memoryview(array.reshape(-1).view(np.uint8)), start + part * array.nbytes)
        self._left[name] -= array.size

    def __enter__(self) -> "SafetensorsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for descriptor in self._files:
            os.close(descriptor)
        unwritten = [name for name, left in self._left.items() if left]
        assert kind is not None or not unwritten, f"export: never written whole: {unwritten[:3]}"


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while len(view):
        count = os.pwrite(descriptor, view[: 1 << 30], offset)
        view, offset = view[count:], offset + count
