"""Parameters that begin with an adapter in PEFT's layout, or have one merged."""

from collections.abc import Mapping
import functools
import json

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np

from xgenmm_jax import files
from xgenmm_jax.convert import peft
from xgenmm_jax.convert.peft import Adapter
from xgenmm_jax.data.errors import shown
from xgenmm_jax.models import lora
from xgenmm_jax.paths import Path
from xgenmm_jax.training.config import TrainConfig, read_object
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.runs import started_with
from xgenmm_jax.training.runs.reading import merge_kernel

BASE_FILE = "xgenmm_base.json"
"""Beside an adapter in PEFT's layout, which has no place for it: the `Print` of the run that its updates change."""


def write_base(config: TrainConfig, run: Path, folder: Path) -> None:
    """Writes BASE_FILE into the folder of an adapter, where the run, of this config, began with all of another run."""
    base = started_with.run_before(config.initialize, run)
    if base is not None:
        files.write_whole(folder / BASE_FILE, json.dumps(base, indent=1) + "\n")


def check_base(folder: Path, run: Path) -> None:
    """Raises ValueError where an adapter says that its updates change other parameters than a run's or checkpoint's."""
    file = folder / BASE_FILE
    if not file.is_file():
        return
    base = read_object(file, {"sha256": str, "of": str}, "copy it again")
    difference = started_with.difference_from(base, run)
    if difference is not None:
        name = f" ('{shown(base['name'])}')" if "name" in base else ""
        raise ValueError(
            f"adapter: '{folder}' was trained over another base{name} than '{run}': {difference}; give that one, or "
            f"delete {BASE_FILE} to take it over this one."
        )


def begin_with(params: Params, config: TrainConfig, folder: Path) -> Params:
    """Parameters of a run whose updates are an adapter's, and with it what that saved whole.

    params: with new updates, which stay where the adapter has none: other kernels, and ranks above its own, which begin
    as nothing. A kernel's `lora_scale` is the adapter's in the layers that it has.

    Raises ValueError where the adapter has what the run would not train, or more ranks.
    """
    adapter = peft.read(folder, config.model)
    flat = flatten_dict(params, sep="/")
    for path in adapter.ranks:
        _check_update(adapter, path, flat)
    for path in adapter.whole:
        if config.lora is None or not any(lora.is_below(path, prefix) for prefix in config.lora.whole):
            raise ValueError(
                f"initialize.adapter: '{folder}' saves '{path}' whole, which this run does not train; add it, or what "
                "it lies in, to lora.whole (--lora.whole)."
            )
        flat[path] = _put(adapter.whole[path], flat[path])
    for path, ranks in adapter.ranks.items():
        beside = path.removesuffix(lora.KERNEL)
        down, up, scale = (beside + kind for kind in (lora.DOWN, lora.UP, lora.SCALE))
        given = {name: adapter.updates[name] for name in (down, up, scale)}
        room = flat[down].shape[-1] - given[down].shape[-1]
        axis = flat[scale].ndim
        widths = [(0, room if number == axis else 0) for number in range(given[up].ndim)]
        has_layer = (ranks > 0).reshape(flat[scale].shape)
        # True where the adapter's A stands, layer by layer.
        columns = np.arange(flat[down].shape[-1]) < ranks.reshape(-1, 1)
        columns = columns.reshape(*flat[scale].shape, *(1,) * (flat[down].ndim - axis - 1), -1)
        given[down] = np.pad(given[down], [(0, 0)] * (given[down].ndim - 1) + [(0, room)])
        flat[down] = _where(columns, given[down], flat[down])
        flat[up] = _put(np.pad(given[up], widths), flat[up])
        flat[scale] = _where(has_layer, given[scale], flat[scale])
    return unflatten_dict(flat, sep="/")


def _check_update(adapter: Adapter, path: str, flat: Mapping[str, jax.Array]) -> None:
    beside = path.removesuffix(lora.KERNEL)
    if beside + lora.DOWN not in flat:
        raise ValueError(
            f"initialize.adapter: '{adapter.folder}' has an update of '{beside.rstrip('/')}', which lora.targets "
            "leaves out; add it (--lora.targets)."
        )
    have, needed = flat[beside + lora.DOWN].shape[-1], int(adapter.ranks[path].max())
    if needed > have:
        raise ValueError(
            f"lora.rank: got {have}, and '{adapter.folder}' has {needed} in '{beside.rstrip('/')}'; give "
            f"--lora.rank {needed}, or more."
        )


def merge_into(params: Params, adapter: Adapter) -> Params:
    """Parameters without updates, with an adapter merged in float32, in the dtypes and shardings that they have."""
    flat = flatten_dict(params, sep="/")
    for path, leaf in adapter.whole.items():
        flat[path] = _put(leaf, flat[path])
    with jax.default_matmul_precision("highest"):
        for path in adapter.ranks:
            flat[path] = merge_kernel(flat[path], path, adapter.updates, flat[path])
    return unflatten_dict(flat, sep="/")


def _put(array: np.ndarray, like: jax.Array) -> jax.Array:
    """On the devices as `like` is."""
    array = array.astype(like.dtype)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: array[index])


def _where(mask: np.ndarray, array: np.ndarray, other: jax.Array) -> jax.Array:
    choose = functools.partial(jnp.where, jnp.asarray(np.broadcast_to(mask, other.shape)))
    return jax.jit(choose, out_shardings=other.sharding)(_put(array, other), other)
