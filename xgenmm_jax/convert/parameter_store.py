"""A checkpoint's `params` folder, leaf by leaf and layer by layer: orbax's layout through tensorstore.

Written are plain zarr arrays, layers in chunks of their own, with orbax's own description of the tree beside, so that
`PyTreeCheckpointHandler` restores them onto any mesh. Read is what orbax writes: zarr arrays, in OCDBT or plain.
"""

import ast
from collections.abc import Mapping
import functools
import json
from typing import Any

import numpy as np
import tensorstore as ts

from xgenmm_jax import buckets, files
from xgenmm_jax.convert.rules import Shape
from xgenmm_jax.convert.scratch import FRESH, Scratch
from xgenmm_jax.models import lora
from xgenmm_jax.paths import Path, is_in_bucket

METADATA = "_METADATA"
CHUNK_BYTES = 128 * 2**20
"""Most bytes of a chunk. A chunk never spans layers: one layer can be read without its neighbours."""
CACHE_BYTES = 512 * 2**20
"""What reading keeps of chunks that span several layers, as training may have written them."""
_FEW = {"max_retries": 5, "initial_delay": "1s", "max_delay": "16s"}
RETRIES = {"gcs_request_retries": _FEW, "s3_request_retries": _FEW}
"""Of requests to buckets: half a minute. Tensorstore's own are 32, a quarter of an hour."""
DICT_KEY = 2  # orbax's KeyType.DICT


class ParameterWriter:
    """Leaves by path, "vision/layers/norm1/scale". `write` may be called from several threads.

    The chunks of a zarr array without compression are its numbers in a file each, so no library stands between: that
    is one copy of everything less. Weights hardly compress. The files are as durable as a copy's.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, Shape], dtype: np.dtype):
        """folder: made here. shapes: of all leaves."""
        if not is_in_bucket(folder):
            folder.mkdir(parents=True)
        self._folder, self._shapes, self._dtype = folder, shapes, np.dtype(dtype)
        files.write_whole(folder / METADATA, json.dumps(_tree_metadata(shapes)) + "\n")

    def write(self, path: str, layer: int | None, array: np.ndarray) -> None:
        """A leaf, or one layer of a stacked one; C-contiguous."""
        shape = self._shapes[path]
        assert array.shape == (shape if layer is None else shape[1:]) and array.dtype == self._dtype, path
        chunks = chunk_shape(shape, layer is not None, self._dtype.itemsize)
        folder = self._folder / path.replace("/", ".")
        if not is_in_bucket(folder):
            folder.mkdir(exist_ok=True)
        if not layer:
            files.write_whole(folder / ".zarray", json.dumps(_zarray(shape, chunks, self._dtype)))
        first = [] if layer is None else [layer]
        rest = chunks[len(first) :]
        axis = next((number for number, size in enumerate(rest) if size != array.shape[number]), 0)
        # Only this axis is cut, and those before it are 1 long: chunks are runs of memory.
        flat, run = array.reshape(-1).view(np.uint8), int(np.prod(rest)) * self._dtype.itemsize
        for number in range(max(1, -(-len(flat) // run))):
            chunk_index = [0] * len(rest)
            if chunk_index:
                chunk_index[axis] = number
            part = memoryview(flat[number * run : (number + 1) * run])
            # The last chunk is as long as the others, whatever the array's end.
            _write_chunk(folder / (".".join(map(str, [*first, *chunk_index])) or "0"), part, run)


def _write_chunk(path: Path, part: memoryview, length: int) -> None:
    """A file of so many bytes that begins with `part`."""
    if is_in_bucket(path):
        buckets.write(path, bytes(part).ljust(length, b"\0"))
        return
    with open(path, "wb", buffering=0) as file:
        while len(part):
            part = part[file.write(part) :]
        file.truncate(length)


def _zarray(shape: Shape, chunks: list[int], dtype: np.dtype) -> dict[str, Any]:
    return {
        "chunks": chunks,
        "compressor": None,
        "dimension_separator": ".",
        "dtype": "bfloat16" if dtype.name == "bfloat16" else dtype.str,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": list(shape),
        "zarr_format": 2,
    }


def chunk_shape(shape: Shape, stacked: bool, itemsize: int) -> list[int]:
    """One layer of a stacked leaf; the first axis that is longer than one is halved until a chunk is small enough.

    No other axis is cut, so that a chunk is one run of memory: (2, 10**9) has chunks of a row, however large.
    """
    chunks = [1, *shape[1:]] if stacked else list(shape)
    axis = next((number for number, size in enumerate(chunks) if size > 1), None)
    while axis is not None and chunks[axis] > 1 and int(np.prod(chunks)) * itemsize > CHUNK_BYTES:
        chunks[axis] = -(-chunks[axis] // 2)
    return chunks


def _tree_metadata(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    tree = {}
    for path, shape in shapes.items():
        keys = tuple(path.split("/"))
        tree[str(keys)] = {
            "key_metadata": [{"key": key, "key_type": DICT_KEY} for key in keys],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False, "write_shape": list(shape)},
        }
    return {
        "tree_metadata": tree,
        "use_ocdbt": False,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }


class ParameterReader:
    """Leaves of a checkpoint's `params` folder. `read` may be called from several threads."""

    def __init__(self, folder: Path):
        """Raises ValueError where the folder is none."""
        self._folder = folder if is_in_bucket(folder) else folder.absolute()
        try:
            metadata = files.parse_json(files.read_text(folder / METADATA))
            keys = [ast.literal_eval(key) for key in metadata["tree_metadata"]]
        except (OSError, ValueError, KeyError, SyntaxError) as error:
            raise ValueError(f"checkpoint: '{folder}' has no parameters of ours ({error}); copy it again.") from error
        self._driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
        self._ocdbt = bool(metadata.get("use_ocdbt"))
        self.paths = tuple("/".join(key) for key in keys)
        self._context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}, **RETRIES})
        self._open = functools.lru_cache(maxsize=None)(self._open_array)

    @property
    def shapes(self) -> dict[str, Shape]:
        return {path: tuple(self._open(path).shape) for path in self.paths}

    def read(self, path: str, layer: int | None = None, scratch: Scratch = FRESH) -> np.ndarray:
        """A leaf, or one layer of a stacked one, in the dtype of the file."""
        array = self._open(path)
        view = array if layer is None else array[layer]
        result = scratch.empty(tuple(view.shape), view.dtype.numpy_dtype)
        # The copy of an array of memory: tensorstore's own `read` would allocate.
        ts.array(result).write(view).result()
        return result

    def _open_array(self, path: str) -> Any:
        name = path.replace("/", ".")
        if is_in_bucket(self._folder):
            base, plain = f"{self._folder}/", f"{self._folder / name}/"
        else:
            base, plain = f"file://{self._folder}/", {"driver": "file", "path": f"{self._folder / name}/"}
        store = {"driver": "ocdbt", "base": base, "path": f"{name}/"} if self._ocdbt else plain
        try:
            return ts.open({"driver": self._driver, "kvstore": store}, open=True, context=self._context).result()
        except ValueError as error:
            raise ValueError(f"checkpoint: '{self._folder}': no array {path} ({error}); copy it again.") from error


class ArrayReader:
    """Leaves that are in memory."""

    def __init__(self, leaves: Mapping[str, np.ndarray]):
        self._leaves = leaves
        self.paths = tuple(leaves)

    @property
    def shapes(self) -> dict[str, Shape]:
        return {path: leaf.shape for path, leaf in self._leaves.items()}

    def read(self, path: str, layer: int | None = None, scratch: Scratch = FRESH) -> np.ndarray:
        leaf = self._leaves[path]
        return leaf if layer is None else np.asarray(leaf[layer])


class MergedReader:
    """The leaves of `base`; those that `updates` has from there, kernels that it has updates of with these."""

    def __init__(self, base: "Reader", updates: "Reader"):
        self._base, self._updates = base, updates
        self.paths = base.paths

    @property
    def shapes(self) -> dict[str, Shape]:
        return self._base.shapes

    def read(self, path: str, layer: int | None = None, scratch: Scratch = FRESH) -> np.ndarray:
        """A leaf, or one layer of a stacked one; of a kernel with updates float32, else in the dtype of the file."""
        if path in self._updates.paths:
            return self._updates.read(path, layer, scratch)
        beside = path.removesuffix(lora.KERNEL)
        leaf = self._base.read(path, layer, scratch)
        if beside == path or beside + lora.DOWN not in self._updates.paths:
            return leaf
        parts = {kind: self._updates.read(beside + kind, layer) for kind in (lora.DOWN, lora.UP, lora.SCALE)}
        return lora.merged_kernel(leaf.astype(np.float32), parts, parts[lora.SCALE].ndim == 1)


Reader = ParameterReader | ArrayReader | MergedReader
"""What gives leaves by path, a slice at a time."""
