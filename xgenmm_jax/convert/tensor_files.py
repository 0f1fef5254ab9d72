"""Tensors of safetensors files, shards with an index, folders of them and .npz files, read one at a time.

Files are read, never mapped: pages of a mapped file count as the process's memory. Of a bucket's, parts are asked for,
as they are of a disk's. No pickle is ever opened.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
import contextlib
from dataclasses import dataclass
import json
import os
import pathlib
import threading
from typing import Any, Protocol, runtime_checkable
import zipfile

import ml_dtypes
import numpy as np

from xgenmm_jax import files, hub
from xgenmm_jax.convert.byte_ranges import ByteRanges, open_ranges
from xgenmm_jax.convert.rules import Shape
from xgenmm_jax.convert.scratch import FRESH, Scratch
from xgenmm_jax.data.storage.range_file import RangeFile
from xgenmm_jax.paths import Path, is_in_bucket

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
SAFETENSORS, NPZ, INDEX = ".safetensors", ".npz", ".safetensors.index.json"
MAX_HEADER = 100_000_000
"""Bytes; what the safetensors library accepts."""

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""safetensors' names. Others exist (8-bit floats); their tensors cannot be used here."""


@dataclass(frozen=True)
class Info:
    """A tensor as its file describes it. dtype: a numpy or safetensors name. file: where it lies."""

    shape: Shape
    dtype: str
    file: Path


@runtime_checkable
class Tensors(Protocol):
    """A source of named tensors. `read` may be called from several threads."""

    path: Path
    infos: Mapping[str, Info]

    def read(
        self, name: str, layer: int | None = None, part: int = 0, of: int = 1, scratch: Scratch = FRESH
    ) -> np.ndarray:
        """One tensor; its entry `layer` along the first axis; the `part`-th of `of` equal pieces of its rows."""
        ...

    def close(self) -> None: ...


def open_tensors(path: Path) -> Tensors:
    """The tensors of a file or folder; only headers are read.

    Raises ValueError for pickles, for what is missing or cut short, and for an index that does not fit its files.
    """
    if path.is_dir():
        files.check_whole(path, "checkpoint")
        return _open_folder(path)
    if not path.is_file():
        raise ValueError(f"checkpoint: no file or folder '{path}'; check the path{hub.hint(path)}.")
    if path.name.endswith(INDEX):
        return _open_index(path)
    if path.suffix == SAFETENSORS:
        return SafetensorsFiles(path, {path: None})
    if path.suffix == NPZ:
        return NpzFile(path)
    refuse_pickles(path)
    raise ValueError(f"checkpoint: '{path}' is neither .safetensors nor .npz; give one of these, or their folder.")


def refuse_pickles(path: Path) -> None:
    """Raises ValueError for a file that is a pickle, or a folder with one: with the way to safetensors."""
    beside = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in beside:
        if file.suffix in PICKLES and file.is_file():
            raise ValueError(_pickle_sentence(file))


def _open_folder(folder: Path) -> Tensors:
    present = sorted(path for path in folder.iterdir() if path.is_file())
    for ending in (INDEX, SAFETENSORS, NPZ):
        matches = [path for path in present if path.name.endswith(ending)]
        # A folder that a library wrote twice, for itself and for transformers: the same tensors, so its own name.
        preferred = [path for path in matches if path.name.startswith("model.")]
        if len(matches) > 1 and len(preferred) == 1:
            matches = preferred
        if len(matches) == 1:
            return open_tensors(matches[0])
        if matches:
            raise ValueError(
                f"checkpoint: '{folder}' holds {len(matches)} files {matches[0].name}, {matches[1].name} ... and no "
                "index; add their model.safetensors.index.json, or give one file."
            )
    refuse_pickles(folder)
    is_local = not is_in_bucket(folder)
    gone = [path.name for path in folder.iterdir() if is_local and path.is_symlink() and not path.exists()]
    because = f" (links whose files are gone: {_some(set(gone))})" if gone else ""
    inside = sorted(folder.glob("snapshots/*/"))  # what Hugging Face's cache has for a model
    which = f"give '{inside[-1]}'" if inside else "give a folder of a checkpoint"
    raise ValueError(f"checkpoint: '{folder}' holds no .safetensors and no .npz{because}; {which}.")


def _open_index(path: Path) -> Tensors:
    """The shards that an index names, beside it or in folders below.

    A name that leads out of the folder is refused: an index comes from elsewhere, and must not have files of the
    user's opened. Links are followed, as their owner made them: Hugging Face's cache consists of links.
    """
    index = _json_object(path, files.read_text(path), "is no index of shards")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f'checkpoint: \'{path}\' is no index of shards: it has no object "weight_map"; copy it again.')
    if not weight_map:
        raise ValueError(f"checkpoint: '{path}' names no tensors; copy it again.")
    names: dict[Path, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file.strip() or "\0" in file:
            got = json.dumps(file)[:70]
            raise ValueError(f"checkpoint: '{path}' names {got} for tensor {name}, which is no file; copy it again.")
        if os.path.isabs(file) or ".." in pathlib.PurePosixPath(file).parts:
            raise ValueError(
                f"checkpoint: '{path}' names '{file}' for tensor {name}, which is outside of its folder and is not "
                "opened; put the shards beside the index and correct it."
            )
        names.setdefault(path.parent / file, set()).add(name)
    return SafetensorsFiles(path.parent, names)


def _json_object(path: Path, text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object of a text in a file. Raises ValueError where it is none or has a name twice."""
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint: '{path}' {what} ({error}); copy it again.") from error
    if not isinstance(value, dict):
        raise ValueError(f"checkpoint: '{path}' {what} (it holds a {type(value).__name__}); copy it again.")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        raise ValueError(f"it names {_some(set(twice))} more than once")
    return mapping


def _pickle_sentence(path: Path) -> str:
    target = path.with_suffix(SAFETENSORS).name
    return (
        f"checkpoint: '{path}' is a pickle, which can run any code, so it is not opened; where torch is installed and "
        f"you trust the file, turn it into safetensors: python -c \"import torch; from safetensors.torch import "
        f"save_file; t = torch.load('{path.name}', map_location='cpu', weights_only=True); t = "
        "t.get('model_state_dict', t.get('model', t)); save_file({k: v.contiguous().clone() for k, v in t.items()}, "
        f"'{target}')\""
    )


class SafetensorsFiles:
    """Tensors of one file or of shards."""

    def __init__(self, path: Path, names: Mapping[Path, set[str] | None]):
        """names: files, and the tensors that the index puts there; None: whatever is there."""
        self.path = path
        self.infos: dict[str, Info] = {}
        self._start: dict[str, int] = {}
        self._files: dict[Path, ByteRanges] = {}
        self._close = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            for file, expected in names.items():
                self._add(file, expected, stack)
            self._close = stack.pop_all()

    def _add(self, file: Path, expected: set[str] | None, stack: contextlib.ExitStack) -> None:
        if not file.is_file():
            is_link = not is_in_bucket(file) and file.is_symlink()
            gone = f" (it is a link to '{os.readlink(file)}', which is gone)" if is_link else ""
            raise ValueError(f"checkpoint: shard '{file}' is missing{gone}; the index names it: copy it too.")
        ranges = open_ranges(file)
        stack.callback(ranges.close)
        header, start = read_header(ranges, file)
        if expected is not None:
            for what, names in (("lacks", expected - header.keys()), ("holds beside", header.keys() - expected)):
                if names:
                    raise ValueError(
                        f"checkpoint: '{file}' {what} the index's tensors: {_some(names)}; copy shards and index again."
                    )
        for name, (dtype, shape, begin, end) in header.items():
            if start + end > ranges.size:
                raise ValueError(
                    f"checkpoint: '{file}' is cut short: {ranges.size:,} bytes, and tensor {name} ends at "
                    f"{start + end:,}; copy it again."
                )
            self.infos[name] = Info(shape, dtype, file)
            self._start[name] = start + begin
        self._files[file] = ranges

    def read(
        self, name: str, layer: int | None = None, part: int = 0, of: int = 1, scratch: Scratch = FRESH
    ) -> np.ndarray:
        """One tensor; its entry `layer` along the first axis; the `part`-th of `of` equal pieces of its rows."""
        info, start = self.infos[name], self._start[name]
        shape, dtype = info.shape, DTYPES[info.dtype]
        if layer is not None:
            shape = shape[1:]
            start += layer * int(np.prod(shape)) * dtype.itemsize
        if of > 1:
            shape = (shape[0] // of, *shape[1:])
            start += part * int(np.prod(shape)) * dtype.itemsize
        array = scratch.empty(shape, dtype)
        if not self._files[info.file].read_into(array, start):
            raise ValueError(f"checkpoint: '{info.file}' ended within tensor {name}; copy it again.")
        return array

    def close(self) -> None:
        self._close.close()


def read_header(ranges: ByteRanges, file: Path) -> tuple[dict[str, tuple[str, Shape, int, int]], int]:
    """Name to (dtype, shape, begin, end) of an opened safetensors file, and where its data starts.

    Raises ValueError where it is none.
    """
    size = ranges.size
    first = np.zeros(min(8, size), np.uint8)
    ranges.read_into(first, 0)
    length = int.from_bytes(first.tobytes(), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ValueError(f"checkpoint: '{file}' is no whole safetensors file ({size:,} bytes); copy it again.")
    text = np.empty(length, np.uint8)
    ranges.read_into(text, 8)
    try:
        raw = _json_object(file, text.tobytes(), "has no safetensors header")
        raw.pop("__metadata__", None)
        header = {
            name: (entry["dtype"], tuple(map(int, entry["shape"])), *map(int, entry["data_offsets"]))
            for name, entry in raw.items()
        }
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"checkpoint: '{file}' has no safetensors header ({error!r}); copy it again.") from error
    for name, (dtype, shape, begin, end) in header.items():
        if begin < 0 or dtype in DTYPES and end - begin != int(np.prod(shape)) * DTYPES[dtype].itemsize:
            raise ValueError(
                f"checkpoint: '{file}': tensor {name} of shape {list(shape)} and dtype {dtype} has {end - begin:,} "
                "bytes; copy it again."
            )
    return header, 8 + length


class NpzFile:
    """Arrays of an .npz file. The last few that were read stay: a scanned array is asked for layer by layer."""

    KEPT = 4

    def __init__(self, path: Path):
        self.path = path
        self.infos: dict[str, Info] = {}
        self._recent: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(RangeFile(str(path)) if is_in_bucket(path) else path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"checkpoint: '{path}' is no whole .npz file ({error}); copy it again.") from error
        try:
            for member in self._zip.namelist():
                name = member.removesuffix(".npy")
                shape, dtype = self._header(member)
                self.infos[name] = Info(shape, dtype.name, path)
        except BaseException:
            self._zip.close()
            raise

    def _header(self, member: str) -> tuple[Shape, np.dtype]:
        try:
            with self._zip.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                if version == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        except (ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"checkpoint: '{self.path}': {member} is no array ({error}); copy it again.") from error
        return shape, _float(dtype)

    def read(
        self, name: str, layer: int | None = None, part: int = 0, of: int = 1, scratch: Scratch = FRESH
    ) -> np.ndarray:
        """One array; its entry `layer` along the first axis; the `part`-th of `of` equal pieces of its rows."""
        with self._lock:
            array = self._recent.pop(name, None)
            if array is None:
                try:
                    with self._zip.open(f"{name}.npy") as stream:
                        array = np.lib.format.read_array(stream, allow_pickle=False)
                except (ValueError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:
                    raise ValueError(
                        f"checkpoint: '{self.path}': array {name} cannot be read ({error}); copy the file again."
                    ) from error
            self._recent[name] = array
            while len(self._recent) > self.KEPT:
                self._recent.popitem(last=False)
        array = array.view(_float(array.dtype))
        array = array if layer is None else array[layer]
        rows = len(array) // of if of > 1 else 0
        return array[part * rows : (part + 1) * rows] if of > 1 else array

    def close(self) -> None:
        self._zip.close()
        self._recent.clear()


def _float(dtype: np.dtype) -> np.dtype:
    """numpy stores bfloat16, which it does not know, as two raw bytes."""
    return np.dtype(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else dtype


def _some(names: set[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
