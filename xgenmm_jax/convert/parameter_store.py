"""A checkpoint's `params` folder, leaf by leaf and layer by layer: orbax's layout through tensorstore.

Written are plain zarr arrays, a chunk a layer, with orbax's own description of the tree beside, so that
`PyTreeCheckpointHandler` restores them onto any mesh. Read is what orbax writes: zarr arrays, in OCDBT or plain.
"""

import ast
from collections.abc import Mapping
import functools
import json
from pathlib import Path
import threading
from typing import Any

import numpy as np
import tensorstore as ts

from xgenmm_jax.convert.rules import Shape

METADATA = "_METADATA"
CHUNK_BYTES = 128 * 2**20
"""Most bytes of a chunk. A chunk never spans layers: one layer can be read without its neighbours."""
CACHE_BYTES = 512 * 2**20
"""What reading keeps of chunks that span several layers, as training may have written them."""
DICT_KEY = 2  # orbax's KeyType.DICT


class ParameterWriter:
    """Leaves by path, "vision/layers/norm1/scale". `write` may be called from several threads."""

    def __init__(self, folder: Path, shapes: Mapping[str, Shape], dtype: np.dtype):
        """folder: made here. shapes: of all leaves."""
        folder.mkdir(parents=True)
        self._folder, self._shapes, self._dtype = folder.absolute(), shapes, np.dtype(dtype)
        self._arrays: dict[str, Any] = {}
        self._lock = threading.Lock()
        # The files' durability is that of a copy; a folder without its config.json is no run.
        self._context = ts.Context({"file_io_sync": False})
        (folder / METADATA).write_text(json.dumps(_tree_metadata(shapes)) + "\n")

    def write(self, path: str, layer: int | None, array: np.ndarray) -> None:
        """A leaf, or one layer of a stacked one. Done when it returns."""
        with self._lock:
            if path not in self._arrays:
                self._arrays[path] = self._create(path, stacked=layer is not None)
        target = self._arrays[path]
        place = target if layer is None else target[layer]
        place.write(array, can_reference_source_data_indefinitely=True).result()

    def _create(self, path: str, stacked: bool) -> Any:
        shape = self._shapes[path]
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{self._folder / path.replace('/', '.')}/"},
            "metadata": {
                "shape": list(shape),
                "chunks": chunk_shape(shape, stacked, self._dtype.itemsize),
                "dtype": "bfloat16" if self._dtype.name == "bfloat16" else self._dtype.str,
                # Weights hardly compress: a tenth less for a third of the time.
                "compressor": None,
            },
        }
        return ts.open(spec, create=True, context=self._context).result()


def chunk_shape(shape: Shape, stacked: bool, itemsize: int) -> list[int]:
    """One layer of a stacked leaf; the first axis that is longer than one is halved until a chunk is small enough."""
    chunks = [1, *shape[1:]] if stacked else list(shape)
    while int(np.prod(chunks)) * itemsize > CHUNK_BYTES:
        axis = next(number for number, size in enumerate(chunks) if size > 1)
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
        self._folder = folder.absolute()
        try:
            metadata = json.loads((folder / METADATA).read_text())
            keys = [ast.literal_eval(key) for key in metadata["tree_metadata"]]
        except (OSError, ValueError, KeyError, SyntaxError) as error:
            raise ValueError(f"checkpoint: '{folder}' has no parameters of ours ({error}); copy it again.") from error
        self._driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
        self._ocdbt = bool(metadata.get("use_ocdbt"))
        self.paths = tuple("/".join(key) for key in keys)
        self._context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
        self._open = functools.lru_cache(maxsize=None)(self._open_array)

    @property
    def shapes(self) -> dict[str, Shape]:
        return {path: tuple(self._open(path).shape) for path in self.paths}

    def read(self, path: str, layer: int | None = None) -> np.ndarray:
        """A leaf, or one layer of a stacked one, in the dtype of the file."""
        array = self._open(path)
        return (array if layer is None else array[layer]).read().result()

    def _open_array(self, path: str) -> Any:
        name = path.replace("/", ".")
        if self._ocdbt:
            store = {"driver": "ocdbt", "base": f"file://{self._folder}/", "path": f"{name}/"}
        else:
            store = {"driver": "file", "path": f"{self._folder / name}/"}
        try:
            return ts.open({"driver": self._driver, "kvstore": store}, open=True, context=self._context).result()
        except ValueError as error:
            raise ValueError(f"checkpoint: '{self._folder}': no array {path} ({error}); copy it again.") from error
