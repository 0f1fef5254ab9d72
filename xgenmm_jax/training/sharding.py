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
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from xgenmm_jax.ops import partitioning
from xgenmm_jax.ops.partitioning import ShardingContext, is_box, path_name

AXES = ("replica", "fsdp", "tensor")

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("replica", "fsdp"),  # rows of the batch, or their crops; on activations only
    "layers": (),  # layers stacked by the scan
    "embed": ("fsdp",),  # decoder width D
    "vision_embed": ("fsdp",),  # width E of tower and resampler
    "mlp": ("tensor",),  # hidden width F of a feed-forward, in decoder, tower and resampler alike
    "heads": ("tensor",),  # in the decoder's fused kernel the key-value heads K, each with its queries
    "kv": (),  # width H of one head
    "vocab": ("tensor",),  # rows of the vocabulary
    "norm": (),  # scales and biases of norms, biases of linear maps that are not mlp, heads or vocab
}
"""Logical axis to mesh axes: every name that a parameter's axis can carry. Axes never worth cutting carry None.

A mesh axis cuts at most one axis of a tensor: the first that claims it. ("vision_embed", "embed") is cut on its inputs.
"""


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

    With several slices the replicas are dealt out over them: only gradients travel between slices.

    Raises ValueError where the sizes do not multiply to the number of devices, or a replica would lie across slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    sizes = list(mesh_sizes(config, len(devices), slices).values())
    auto = (AxisType.Auto,) * len(AXES)  # linen's constraints are refused on the default, explicit axes
    return Mesh(_over_slices(devices, sizes, slices), AXES, axis_types=auto)


def mesh_sizes(config: MeshConfig, devices: int, slices: int) -> dict[str, int]:
    """Of each axis, over so many devices. Raises ValueError as `make_mesh` does."""
    sizes = [config.replica, config.fsdp, config.tensor]
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = devices // rest if rest > 0 else 0
    if min(sizes) < 1 or math.prod(sizes) != devices:
        raise ValueError(
            f"mesh: got replica {config.replica} x fsdp {config.fsdp} x tensor {config.tensor} for {devices} "
            "devices; the product must equal the number of devices, with -1 on at most one axis for the rest."
        )
    if sizes[0] % slices:
        raise ValueError(
            f"mesh: got replica {sizes[0]} for {slices} slices; make it a multiple of {slices} (--mesh.replica "
            f"{slices}), so that parameters are gathered inside a slice and only gradients travel between slices."
        )
    return dict(zip(AXES, sizes, strict=True))


def _over_slices(devices: Sequence[jax.Device], sizes: Sequence[int], slices: int) -> np.ndarray:
    """Devices by (replica, fsdp, tensor), each slice a block of whole replicas."""
    replica, *inner = sizes
    # Ordered by the network's topology; where an axis matches no axes of the network whole, 128 on v6e's 16 x 16, it
    # takes part of one. jax.make_mesh allows that for v5e only.
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return mesh_utils.create_hybrid_device_mesh(
        (replica // slices, *inner), (slices, 1, 1), devices, allow_split_physical_axes=True
    )


def sharding_context(mesh: Mesh) -> ShardingContext:
    """The mesh with this table, as generation takes it."""
    return ShardingContext(mesh, RULES)


def axis_rules() -> AbstractContextManager:
    """Context in which `ops.partitioning.constrain` uses this table."""
    return nn.logical_axis_rules([(name, axes or None) for name, axes in RULES.items()])


def spec(mesh: Mesh, names: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
    """Mesh axes of an array's axes (`ops.partitioning.spec` says how)."""
    return partitioning.spec(names, shape, RULES, mesh.shape)


def param_shardings(mesh: Mesh, boxed: Any) -> Any:
    """Shardings of a parameter tree whose leaves are boxed with logical names (`jax.eval_shape` of an init).

    Leaves without a box are replicated. The result has no boxes.

    Raises ValueError with the tensor's path where its names are not those of the table, or one stands twice.
    """

    def one(path, leaf):
        if not is_box(leaf):
            return replicated(mesh)
        try:
            return NamedSharding(mesh, spec(mesh, leaf.names, leaf.value.shape))
        except ValueError as error:
            raise ValueError(f"sharding: {path_name(path)}: {error}") from error

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=is_box)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of every batch leaf: the first axis over replica and fsdp."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def host_share(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """(index, count): this host gives part `index` of `count` equal parts of every batch.

    Hosts whose devices differ in `tensor` alone hold the same rows and have the same index. process: this one by
    default.

    Raises ValueError where hosts have some rows in common and others not.
    """
    shards = math.prod(mesh.shape[axis] for axis in RULES["batch"])
    held: dict[int, set[int]] = {}
    for shard, devices in enumerate(mesh.devices.reshape(shards, -1)):
        for device in devices:
            held.setdefault(device.process_index, set()).add(shard)
    parts = sorted({tuple(sorted(part)) for part in held.values()})
    if sum(map(len, parts)) != shards or len({len(part) for part in parts}) != 1:
        raise ValueError(
            f"mesh: with tensor {mesh.shape['tensor']} two hosts share some of their rows; choose a tensor size that "
            "divides the devices of a host, or a multiple of them."
        )
    return parts.index(tuple(sorted(held[jax.process_index() if process is None else process]))), len(parts)


def check_rows(mesh: Mesh, rows: int, accumulation: int) -> None:
    """Raises ValueError where the rows of a global batch do not divide over accumulation and devices."""
    check_shards(mesh.shape, rows, accumulation)


def check_shards(sizes: Mapping[str, int], rows: int, accumulation: int) -> None:
    """As `check_rows`, for the sizes of a mesh."""
    shards = math.prod(sizes[axis] for axis in RULES["batch"])
    if rows % (accumulation * shards):
        raise ValueError(
            f"batch: got {rows} rows for accumulation {accumulation} on {shards} row shards; "
            f"choose a multiple of {accumulation * shards} rows, or change mesh or accumulation."
        )


def put_rows(batch: Any, sharding: NamedSharding) -> Any:
    """A batch of numpy arrays on the devices, rows split. With several hosts each gives its part (`host_share`)."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)
