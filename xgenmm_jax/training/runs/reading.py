"""The parameters of a run as a model takes them: of one with low-rank updates what it began with, and these merged.

A run with updates keeps them alone (`models/lora.py:stored`), so what they change is read from where it began and held
to the checksums of then (`started_with.base_of`). That may be a run with updates in its turn.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
import numpy as np

from xgenmm_jax.batch import ArrayLike
from xgenmm_jax.convert.parameter_store import ArrayReader, MergedReader, ParameterReader, Reader
from xgenmm_jax.convert.rules import Shape
from xgenmm_jax.models import lora
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.paths import Path, user_path
from xgenmm_jax.training.config import Initialize, TrainConfig, load_config
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.runs import checkpoints
from xgenmm_jax.training.runs.initialize import PARTS, initialize_params
from xgenmm_jax.training.runs.run_folder import CONFIG_FILE
from xgenmm_jax.training.runs.started_with import base_of
from xgenmm_jax.training.setup import boxed_params


def restore_run(source: Path, abstract: Params) -> Params:
    """All parameters of a run folder's newest checkpoint, or of one checkpoint, with its updates merged in float32.

    abstract: ShapeDtypeStructs with shardings; a tree that holds some of the parts only reads those.

    Raises ValueError where there is no checkpoint, a part has another size, or what updates change is not what it was.
    """
    checkpoint = checkpoints.newest(source)
    shapes = checkpoints.param_shapes(checkpoint / "params")
    if not any(map(lora.is_update, shapes)):
        return checkpoints.restore_params(checkpoint, abstract)
    config, base = run_of(checkpoint)
    expected = flatten_dict(abstract, sep="/")
    stored = {name: shape for name, shape in shapes.items() if name.split("/")[0] in abstract}
    # Kernels are rounded to their dtype once, when their updates are in them.
    kernels = [name.removesuffix(lora.DOWN) + lora.KERNEL for name in stored if name.endswith(f"/{lora.DOWN}")]
    exact = {name: _float32(expected[name].shape, expected[name].sharding) for name in kernels if name in expected}
    params = flatten_dict(_began_with(config, base, unflatten_dict(expected | exact, sep="/")), sep="/")
    if not stored:
        return unflatten_dict(params, sep="/")
    layouts = {name: _layout(name, stored, expected) for name in stored}
    updates = flatten_dict(checkpoints.restore_params(checkpoint, unflatten_dict(layouts, sep="/")), sep="/")
    params |= {name: leaf for name, leaf in updates.items() if not lora.is_update(name)}
    with jax.default_matmul_precision("highest"):
        for name in kernels:
            params[name] = merge_kernel(params[name], name, updates, expected[name])
    return unflatten_dict(params, sep="/")


def run_of(checkpoint: Path) -> tuple[TrainConfig, Initialize]:
    """Config of the run with updates whose checkpoint this is, and where the parameters are that they change.

    Raises ValueError where the checkpoint has left its run, or they are not what they were.
    """
    run = checkpoint.parent.parent
    if not (run / CONFIG_FILE).is_file():
        raise ValueError(
            f"checkpoint: '{checkpoint}' holds low-rank updates alone, and no run folder around it says of what; give "
            "the run folder that it comes from."
        )
    config = load_config(run)
    return config, base_of(config, run)


def merge_kernel(kernel: jax.Array, name: str, updates: Mapping[str, ArrayLike], like: Any) -> jax.Array:
    """A kernel with its update in it, in the dtype and sharding of `like`. updates: by path."""
    beside = name.removesuffix(lora.KERNEL)
    parts = {kind: updates[beside + kind] for kind in (lora.DOWN, lora.UP, lora.SCALE)}

    def merge(kernel: jax.Array, parts: dict[str, jax.Array]) -> jax.Array:
        return lora.merged_kernel(kernel.astype(jnp.float32), parts, parts[lora.SCALE].ndim == 1).astype(like.dtype)

    return jax.jit(merge, out_shardings=like.sharding)(kernel, parts)


def _began_with(config: TrainConfig, base: Initialize, abstract: Params) -> Params:
    """What the updates of a run change; the parts that `abstract` has."""
    left_out = {part: None for part in PARTS if part not in abstract}
    fresh = tuple(prefix for prefix in base.fresh if prefix.split("/")[0] in abstract)
    base = dataclasses.replace(base, fresh=fresh, **left_out)
    init = jax.jit(functools.partial(boxed_params, config.objective, config.model, None))
    return initialize_params(base, init, config.seed, abstract, config.model)


def _layout(name: str, stored: Mapping[str, Shape], expected: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
    """How a stored leaf is laid out: an update as the inputs and outputs of its kernel are."""
    if not lora.is_update(name):
        return expected[name]
    beside, _, kind = name.rpartition("/")
    sharding = expected[f"{beside}/{lora.KERNEL}"].sharding
    if not isinstance(sharding, NamedSharding):
        return _float32(stored[name], sharding)
    stacked = len(stored[f"{beside}/{lora.SCALE}"])
    kernel = expected[f"{beside}/{lora.KERNEL}"].shape
    spec = tuple(sharding.spec) + (None,) * (len(kernel) - len(sharding.spec))
    inputs_end = len(stored[f"{beside}/{lora.DOWN}"]) - 1
    axes = {lora.DOWN: (*spec[:inputs_end], None), lora.UP: (*spec[:stacked], None, *spec[inputs_end:])}
    sharding = NamedSharding(sharding.mesh, PartitionSpec(*axes.get(kind, ())))
    return _float32(stored[name], sharding)


def _float32(shape: Shape, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)


def open_parameters(run: Path) -> Reader:
    """The parameters of a run's newest checkpoint, a slice of a leaf at a time, its updates merged in float32.

    What updates change is read so as well where it is all of another run; else it is held in memory.

    Raises ValueError as `restore_run` does.
    """
    checkpoint = checkpoints.newest(run)
    updates = ParameterReader(checkpoint / "params")
    if not any(map(lora.is_update, updates.paths)):
        return updates
    config, base = run_of(checkpoint)
    if base.run is not None and base == Initialize(run=base.run):
        return MergedReader(open_parameters(user_path(base.run, "initialize.run")), updates)
    shapes = unboxed(jax.eval_shape(functools.partial(config.objective.init, config.model), jax.random.key(0)))
    sharding = SingleDeviceSharding(jax.devices()[0])
    params = _began_with(config, base, jax.tree.map(lambda leaf: _float32(leaf.shape, sharding), shapes))
    leaves = {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    return MergedReader(ArrayReader(leaves), updates)
