"""Attention for every model: `attend` picks the implementation.

It follows from the platform of the devices of the mesh in force (`jax.set_mesh`), not from the process's default, so a
program compiled for a TPU on a machine without one has the TPU's kernel: splash on a TPU (`attention_splash.py`), flash
on an NVIDIA GPU (`attention_triton.py`), XLA's own operations elsewhere (`attention_xla.py`, for long rows
`attention_blockwise.py`). Configs can name one.
"""

import functools
import math

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xgenmm_jax.ops import attention_decode
from xgenmm_jax.ops.attention_blockwise import blockwise_attention
from xgenmm_jax.ops.attention_choice import KERNELS, Implementation, implementation_for
from xgenmm_jax.ops.attention_splash import splash_attention
from xgenmm_jax.ops.attention_triton import flash_attention
from xgenmm_jax.ops.attention_xla import xla_attention
from xgenmm_jax.ops.masks import AttentionMask, SlidingWindow, dense_mask
from xgenmm_jax.ops.partitioning import on_one_device, on_one_gpu, platform

CONTEXT = "context"
"""Checkpoint name of attention's result, for rematerialisation policies."""


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: AttentionMask = AttentionMask(),  # noqa: B008
    window: SlidingWindow | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, "B T N H"]:
    """softmax(query key^T / sqrt(H)) value, each key-value head serving N / K neighbouring query heads.

    window: given where attention is causal: queries and keys are the same row, or with a dense mask the queries its
    last ones; the window that `mask` was made for. Float32 inside, the result in the values' dtype. The result of a
    query without keys is finite, differs between implementations, and its gradients are finite.
    """
    chosen = implementation_for(implementation, query.shape[1], key.shape[1])
    is_causal, left = window is not None, None if window is None else window.left
    if mask.positions is not None and is_causal:
        context = blockwise_attention(query, key, value, mask.query_segments, mask.positions, left)
        return checkpoint_name(context, CONTEXT)
    if mask.dense is not None and query.shape[1] == 1 and _decodes_by_kernel(query, key, implementation):
        return attention_decode.decode_attention(query, key, value, mask.dense)
    if mask.dense is not None or chosen == "xla":
        assert mask.query_segments is None, "made for a kernel: give `attend` the implementation that made the mask"
        return checkpoint_name(xla_attention(query, key, value, mask.dense, is_causal), CONTEXT)
    kernel = functools.partial(
        {"splash": splash_attention, "flash": flash_attention}[chosen],
        causal=is_causal,
        left=left,
        checkpoint_name=CONTEXT,
        interpret=KERNELS.get(platform()) != chosen,
    )
    query_segments, key_segments = mask.query_segments, mask.key_segments
    if query_segments is None or key_segments is None:
        query_segments, key_segments = (jnp.ones(x.shape[:2], jnp.int32) for x in (query, key))
    return _on_every_device(kernel, query, key, value, query_segments, key_segments)


def _decodes_by_kernel(query: Float[Array, "B T N H"], key: Float[Array, "B S K H"], implementation: str) -> bool:
    """Whether one query a row goes through the GPU's decoding kernel. Over a mesh XLA decodes, which is sharded."""
    possible = attention_decode.is_possible(query.shape[2] // key.shape[2], key.shape[1])
    return possible and on_one_gpu() and implementation in ("auto", "flash")


def _on_every_device(kernel, query, key, value, query_segments, key_segments) -> Float[Array, "B T N H"]:
    """The kernel on each device's rows and heads, by the axis rules in force: the compiler cannot shard a kernel."""
    mesh = jax.sharding.get_abstract_mesh()
    if on_one_device() or mesh.manual_axes:
        return kernel(query, key, value, query_segments, key_segments)
    batch = _mesh_axes(mesh, "batch", query.shape[0])
    # Key-value heads and their queries are sharded alike, or not at all.
    heads = jax.P(batch, None, _mesh_axes(mesh, "heads", key.shape[2]), None)
    row = jax.P(batch, None)
    # check_vma needs to know how results vary over devices, which kernels do not declare.
    sharded = jax.shard_map(kernel, in_specs=(heads, heads, heads, row, row), out_specs=heads, check_vma=False)
    return sharded(query, key, value, query_segments, key_segments)


def _mesh_axes(mesh: jax.sharding.AbstractMesh, name: str, size: int) -> tuple[str, ...] | None:
    """Mesh axes that shard an axis of this logical name; None where they do not divide it, as for parameters."""
    axes = dict(nn.get_logical_axis_rules()).get(name) or ()
    axes = (axes,) if isinstance(axes, str) else tuple(axes)
    return axes if axes and size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None


def sow_attention_weights(
    module: nn.Module,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    mask: AttentionMask = AttentionMask(),  # noqa: B008
    window: SlidingWindow | None = None,
) -> None:
    """Sows the weights [B N T S] under the module's "attention", where that collection is mutable.

    Layers of a scan stack theirs on a leading axis. XLA computes them, whichever implementation `attend` takes.
    """
    # While initialising every collection is mutable.
    if module.is_mutable_collection("attention") and not module.is_initializing():
        key = jnp.repeat(key, query.shape[2] // key.shape[2], axis=2)
        module.sow("attention", "weights", attention_weights(query, key, dense_mask(mask, window)))


def attention_weights(
    query: Float[Array, "B T N H"], key: Float[Array, "B S N H"], mask: Bool[Array, "B #T S"] | None = None
) -> Float[Array, "B N T S"]:
    """The softmax weights of `attend`, for attention maps. Float32."""
    scores_BNTS = jnp.einsum(
        "BTNH,BSNH->BNTS", query * query.shape[-1] ** -0.5, key, preferred_element_type=jnp.float32
    )
    if mask is not None:
        scores_BNTS = jnp.where(mask[:, None], scores_BNTS, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores_BNTS, axis=-1)
