"""The device mesh, and the one table that maps logical axes to its axes.

Parameters, optimizer state, batches and caches take their shardings from here, on one device as on many.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
import math
from typing import Any

from flax import linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

AXES = ("replica", "fsdp", "tensor")

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("replica", "fsdp"),
    "layers": (),
    "embed": ("fsdp",),
    "vision_embed": ("fsdp",),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "kv": (),
    "vocab": ("tensor",),
    "norm": (),
}
"""Logical axis to mesh axes. `models/layers.py` says what each name is."""


@dataclass(frozen=True)
class MeshConfig:
    """How many devices each axis takes; -1 on one axis: all that remain.

    replica copies parameters and splits rows, fsdp splits parameters and rows, tensor splits heads, MLP and vocabulary.
    """

    replica: int = 1
    fsdp: int = -1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes ("replica", "fsdp", "tensor") over the devices, all of them by default.

    Raises ValueError where the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [config.replica, config.fsdp, config.tensor]
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = len(devices) // rest if rest > 0 else 0
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        raise ValueError(
            f"mesh: got replica {config.replica} x fsdp {config.fsdp} x tensor {config.tensor} for {len(devices)} "
            "devices; the product must equal the number of devices, with -1 on at most one axis for the rest."
        )
    # jax.make_mesh orders devices by the network's topology; its default axis types refuse linen's constraints.
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def axis_rules() -> AbstractContextManager:
    """Context in which `nn.with_logical_constraint` inside the models uses this table."""
    return nn.logical_axis_rules([(name, axes or None) for name, axes in RULES.items()])


def spec(mesh: Mesh, names: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
    """Mesh axes of an array's axes.

    An axis that does not divide evenly stays whole, and a mesh axis serves the first array axis that claims it.
    """
    if len(names) != len(shape):
        raise ValueError(f"sharding: got axis names {tuple(names)} for shape {tuple(shape)}; name every axis once.")
    used: set[str] = set()
    entries = []
    for name, size in zip(names, shape, strict=True):
        axes = tuple(axis for axis in RULES[name] if axis not in used) if name is not None else ()
        if not axes or size % math.prod(mesh.shape[axis] for axis in axes):
            entries.append(None)
            continue
        used.update(axes)
        entries.append(axes if len(axes) > 1 else axes[0])
    return PartitionSpec(*entries)


def param_shardings(mesh: Mesh, boxed: Any) -> Any:
    """Shardings of a parameter tree whose leaves are boxed with logical names (`jax.eval_shape` of an init).

    Leaves without a box are replicated. The result has no boxes.
    """

    def one(leaf):
        if _is_box(leaf):
            return NamedSharding(mesh, spec(mesh, leaf.names, leaf.value.shape))
        return replicated(mesh)

    return jax.tree.map(one, boxed, is_leaf=_is_box)


def unboxed(tree: Any) -> Any:
    """The tree without boxes. Not `nn.unbox`, which under a mesh constrains the values, and so wants arrays."""
    return jax.tree.map(lambda leaf: leaf.value if _is_box(leaf) else leaf, tree, is_leaf=_is_box)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of every batch leaf: the first axis over replica and fsdp."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def check_rows(mesh: Mesh, rows: int, accumulation: int) -> None:
    """Raises ValueError where the rows of a batch do not divide over accumulation and devices."""
    shards = math.prod(mesh.shape[axis] for axis in RULES["batch"])
    if rows % (accumulation * shards):
        raise ValueError(
            f"batch: got {rows} rows for accumulation {accumulation} on {shards} row shards; "
            f"choose a multiple of {accumulation * shards} rows, or change mesh or accumulation."
        )


def put_rows(batch: Any, sharding: NamedSharding) -> Any:
    """A batch of numpy arrays on the devices, rows split. With several hosts each gives its own consecutive rows."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def mesh_shape(mesh: Mesh) -> Mapping[str, int]:
    """Sizes by axis, for the run folder."""
    return dict(mesh.shape)
