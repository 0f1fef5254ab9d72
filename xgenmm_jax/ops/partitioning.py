"""Logical axis names to mesh axes, by shape; the table of names is `training/sharding.py`'s.

Models and generation name the axes of their activations here and know no mesh; without one, nothing is sharded.
"""

from collections.abc import Mapping, Sequence
import contextlib
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array
import numpy as np

Rules = Mapping[str, tuple[str, ...]]
"""Logical axis to the mesh axes over which it is sharded, () for none."""


class ShardingContext(NamedTuple):
    """A mesh and the rules by which activations are sharded over it."""

    mesh: Mesh
    rules: Rules

    def __call__(self) -> contextlib.ExitStack:
        """Context in which tracing shards over the mesh. Enter it again for every call of a jitted function."""
        stack = contextlib.ExitStack()
        stack.enter_context(jax.set_mesh(self.mesh))
        stack.enter_context(nn.logical_axis_rules([(name, axes or None) for name, axes in self.rules.items()]))
        return stack


def spec(names: Sequence[str | None], shape: Sequence[int], rules: Rules, sizes: Mapping[str, int]) -> PartitionSpec:
    """Mesh axes of an array's axes. sizes: of the mesh, by axis.

    A mesh axis serves the first array axis that claims it, and an axis that does not divide evenly is not sharded. No
    mesh axis stands twice: ("vision_embed", "embed"), both on fsdp, gives ("fsdp", None).

    Raises ValueError where names and axes differ in number, a name is not in the rules, or stands twice.
    """
    if len(names) != len(shape):
        raise ValueError(f"got axis names {tuple(names)} for shape {tuple(shape)}; name every axis once.")
    used: set[str] = set()
    entries = []
    for index, (name, size) in enumerate(zip(names, shape, strict=True)):
        if name is not None and name not in rules:
            raise ValueError(f"got the axis name '{name}', wanted one of {', '.join(rules)}; or add it to the table.")
        if name is not None and name in names[:index]:
            raise ValueError(f"got the axis name '{name}' twice in {tuple(names)}; name the one that is cut.")
        axes = tuple(axis for axis in rules[name] if axis not in used) if name is not None else ()
        if not axes or size % math.prod(sizes[axis] for axis in axes):
            entries.append(None)
            continue
        used.update(axes)
        entries.append(axes if len(axes) > 1 else axes[0])
    return PartitionSpec(*entries)


def path_name(path: tuple) -> str:
    """A tree path as written in messages and `freeze`: "vision/layers/norm1/scale"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_box(leaf: Any) -> bool:
    """Whether a leaf of a parameter tree is boxed with its logical names."""
    return isinstance(leaf, nn.LogicallyPartitioned)


def unboxed(tree: Any) -> Any:
    """The tree without boxes. Not `nn.unbox`, which under a mesh constrains the values, and so needs arrays."""
    return jax.tree.map(lambda leaf: leaf.value if is_box(leaf) else leaf, tree, is_leaf=is_box)


def constrain(x: Array, names: Sequence[str | None]) -> Array:
    """x, sharded as its axis names say. Without rules (`nn.logical_axis_rules`) or mesh (`jax.set_mesh`): x."""
    rules = {name: tuple(axes) if isinstance(axes, tuple) else () for name, axes in nn.get_logical_axis_rules()}
    mesh = jax.sharding.get_abstract_mesh()
    if not rules or mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(names, x.shape, rules, dict(mesh.shape)))


def on_host(x: Array) -> np.ndarray:
    """The whole array. Where it lies over the devices of several hosts, all of them call this, and get it alike."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def as_matrix(kernel: Array, names: Sequence[str | None], inputs: int) -> Array | None:
    """A kernel's first `inputs` axes and its others as one axis each, sharded as they are. None where it stays itself.

    For a TPU XLA sums and scatters a matrix's gradient in one; of a kernel of more axes every device receives the whole
    sum, twice the traffic, and drops what is not its own (docs/log/pods_planning.md#gradients-of-matrices). The
    constraint holds for the gradient too: that is what tells XLA which axis is scattered. So only on several devices,
    and not where they cut another axis than the first of the two groups, which cannot be said of a merged axis.
    """
    rules = {name: tuple(axes) if isinstance(axes, tuple) else () for name, axes in nn.get_logical_axis_rules()}
    mesh = jax.sharding.get_abstract_mesh()
    if kernel.ndim == 2 or not rules or on_one_device():
        return None
    cuts = tuple(spec(names, kernel.shape, rules, dict(mesh.shape)))
    firsts = (0, inputs)
    if any(_parts(mesh, axes) > 1 for axis, axes in enumerate(cuts) if axis not in firsts):
        return None
    matrix = kernel.reshape(math.prod(kernel.shape[:inputs]), -1)
    return jax.lax.with_sharding_constraint(matrix, PartitionSpec(*(cuts[axis] for axis in firsts)))


def _parts(mesh: jax.sharding.AbstractMesh, axes: str | tuple[str, ...] | None) -> int:
    """Into how many parts an entry of a PartitionSpec cuts."""
    axes = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape[axis] for axis in axes)


def platform() -> str:
    """Platform (cpu, gpu, tpu) of the devices of the mesh in force; without a mesh that of the only device.

    Without a mesh and with several devices it is cpu: how arrays are sharded is unknown then, and only XLA takes any.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return device.platform
    return jax.default_backend() if jax.device_count() == 1 else "cpu"


def on_one_device() -> bool:
    """Whether traced functions run on one device: without a mesh, or over one of size 1."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def on_one_gpu() -> bool:
    """Whether traced functions run on one NVIDIA GPU, so that they can call kernels without `shard_map`."""
    return on_one_device() and platform() == "gpu"
