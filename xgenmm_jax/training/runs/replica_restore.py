"""A checkpoint read by the hosts of one replica, which send it to the others over the network between the chips.

Every replica holds the same parameters, so with R of them the storage would give the same bytes R times. Not orbax's
`SingleReplicaArrayHandler`: it adds floats to zeros, which makes 0 of -0, and a host whose read fails leaves the others
waiting. Here bits are added, as integers, and all hosts know of an error before anything is sent.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array
import numpy as np

from xgenmm_jax.training.hosts.distributed import anyone

AXIS = "replica"
"""Of the mesh, its first; no parameter is cut along it."""


def replicated_mesh(abstract: Any) -> Mesh | None:
    """The mesh of a tree of ShapeDtypeStructs, where one replica can read for the others: each host lies in one replica
    alone, and not all in the same. Else None."""
    shardings = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(abstract)]
    if jax.process_count() == 1 or not all(isinstance(sharding, NamedSharding) for sharding in shardings):
        return None
    meshes = {sharding.mesh for sharding in shardings}
    if len(meshes) != 1 or any(leaf.dtype.itemsize != 4 for leaf in jax.tree.leaves(abstract)):
        return None
    (mesh,) = meshes
    return mesh if is_apart([[device.process_index for device in part.flat] for part in mesh.devices]) else None


def is_apart(hosts: list[list[int]]) -> bool:
    """Whether no host is in two replicas. hosts: of each replica's devices."""
    parts = [set(part) for part in hosts]
    return len(parts) > 1 and sum(map(len, parts)) == len(set().union(*parts))


def restore(read: Callable[[Any], Any], abstract: Any, mesh: Mesh) -> Any:
    """What `read` gives for `abstract`, read by the first replica's hosts. All hosts call this.

    Raises what `read` raises, on the hosts that read; ValueError on all others.
    """
    first = Mesh(mesh.devices[:1], mesh.axis_names)
    is_reader = jax.process_index() in {device.process_index for device in first.devices.flat}
    tree, error = None, None
    if is_reader:
        try:
            tree = read(jax.tree.map(lambda leaf: _over(leaf, first), abstract))
        except Exception as raised:  # told to the others before it is raised
            error = raised
    if anyone(error is not None):
        raise error or ValueError("checkpoint: a host of the first replica could not read it, and says why.")
    return send(tree, abstract, mesh)


def send(tree: Any, abstract: Any, mesh: Mesh) -> Any:
    """Leaves that lie on the first replica, on all of them. tree: None on hosts without a device there; it is deleted.

    Leaf by leaf: a device holds two leaves more than the result. A program is compiled for each shape.
    """
    likes, structure = jax.tree.flatten(abstract)
    leaves = [None] * len(likes) if tree is None else jax.tree.leaves(tree)
    return jax.tree.unflatten(
        structure, [_sent(leaf, like, mesh) for leaf, like in zip(leaves, likes, strict=True)]
    )


def _sent(leaf: Array | None, like: jax.ShapeDtypeStruct, mesh: Mesh) -> Array:
    # A leading axis of replicas: the first holds the leaf's bits, the others zeros.
    shape, sharding = (mesh.shape[AXIS], *like.shape), NamedSharding(mesh, jax.P(AXIS, *like.sharding.spec))
    # Through the host, as no operation runs on a part of the mesh in force; bits, so -0 and NaN stay what they are.
    here = {} if leaf is None else {one.device: np.asarray(one.data).view(np.uint32) for one in leaf.addressable_shards}
    nothing = np.zeros(sharding.shard_shape(shape)[1:], np.uint32)
    parts = [
        jax.device_put(here.get(device, nothing)[None], device)
        for device in sharding.addressable_devices_indices_map(shape)
    ]
    if leaf is not None:
        leaf.delete()  # its bits are copied
    whole = jax.make_array_from_single_device_arrays(shape, sharding, parts)
    return _summed(like.dtype, like.sharding)(whole)


@functools.cache
def _summed(dtype: Any, sharding: NamedSharding) -> Callable[[Array], Array]:
    def replicas_sum(bits: Array) -> Array:
        return jax.lax.bitcast_convert_type(jnp.sum(bits, axis=0, dtype=jnp.uint32), dtype)

    return jax.jit(replicas_sum, out_shardings=sharding)


def _over(leaf: jax.ShapeDtypeStruct, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, leaf.sharding.spec))
