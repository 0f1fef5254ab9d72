"""Attention for every model: one function, and who sees whom in packed, causal, windowed rows.

What computes it follows from the platform of the devices of the mesh in force (`jax.set_mesh`), not from the process's
default, so a program compiled for a TPU on a machine without one has the TPU's kernel: splash on a TPU
(`attention_splash.py`), flash on an NVIDIA GPU (`attention_triton.py`), XLA's own operations elsewhere
(`attention_xla.py`, `attention_blockwise.py` for long rows). Configs can name one.
"""

from dataclasses import dataclass
from enum import Enum
import functools
import math
from typing import Literal, NamedTuple

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from xgenmm_jax.ops import attention_decode
from xgenmm_jax.ops.attention_blockwise import is_long, long_rows, visible
from xgenmm_jax.ops.attention_splash import splash_attention
from xgenmm_jax.ops.attention_triton import flash_attention
from xgenmm_jax.ops.attention_xla import xla_attention
from xgenmm_jax.ops.partitioning import on_one_device, on_one_gpu, platform

Implementation = Literal["auto", "xla", "splash", "flash"]
"""auto: by the platform of the mesh; rows shorter than SHORTEST_KERNEL_ROW always take XLA. splash: JAX's TPU kernels.
flash: Pallas kernels for NVIDIA GPUs from Ampere on. Off their platform both run in an interpreter, for tests."""

KERNELS = {"tpu": "splash", "gpu": "flash"}
"""A device's platform to the implementation of "auto"; xla on every other."""

SHORTEST_KERNEL_ROW = 128
"""Kernels pad queries and keys to blocks of 128: below, XLA's scores are small and the padding is most of the work."""

CONTEXT = "context"
"""What remat policies call attention's result."""


class Window(Enum):
    """How many keys a token sees in sliding attention of size w (transformers' versions disagree:
    docs/reference/xgenmm.md#sliding-window).

    W_PLUS_1: keys i-w..i (w + 1 of them), W: keys i-w+1..i, NONE: all up to itself. Counted in positions.
    """

    W_PLUS_1 = "w_plus_1"
    W = "w"
    NONE = "none"


@dataclass(frozen=True)
class Causal:
    """Causal order: a query sees its own key and the `reach` keys before it; None: all before it."""

    reach: int | None = None

    @classmethod
    def of(cls, window: Window, size: int) -> "Causal":
        return cls({Window.W_PLUS_1: size, Window.W: size - 1, Window.NONE: None}[window])


class Sight(NamedTuple):
    """Who sees whom, in the form that the implementation takes; made once and handed to every layer.

    XLA takes the mask, True where a key is seen. Kernels take segments: a query sees the keys of its own segment.
    XLA takes long packed rows as segments too, with positions: their mask would be a byte for every pair of positions.
    All None: every query sees every key.
    """

    mask: Bool[Array, "B #T S"] | None = None
    query_segments: Int32[Array, "B T"] | None = None
    key_segments: Int32[Array, "B S"] | None = None
    positions: Int32[Array, "B T"] | None = None


def packed_rows(
    segment_ids: Int32[Array, "B T"], positions: Int32[Array, "B T"], causal: Causal, implementation: Implementation
) -> Sight:
    """Of packed rows that attend to themselves: causal, inside a segment. Segment 0 is padding.

    Windows count positions. Kernels count rows of the array instead, which is the same where a segment's positions
    count up one by one, as packing lays them; padding inside a segment would be counted by a kernel's window.
    """
    length = segment_ids.shape[1]
    if implementation_for(implementation, length, length) == "xla":
        if is_long(length):
            return Sight(query_segments=segment_ids, key_segments=segment_ids, positions=positions)
        return Sight(mask=causal_mask(segment_ids, positions, segment_ids, positions, causal))
    return Sight(query_segments=segment_ids, key_segments=segment_ids)


def seen_keys(is_seen: Bool[Array, "B S"], length: int, implementation: Implementation) -> Sight:
    """Of `length` queries a row that all see the same keys."""
    if implementation_for(implementation, length, is_seen.shape[1]) == "xla":
        return Sight(mask=is_seen[:, None])
    return Sight(query_segments=jnp.ones((is_seen.shape[0], length), jnp.int32), key_segments=is_seen.astype(jnp.int32))


def causal_mask(
    query_segments: Int32[Array, "B T"],
    query_positions: Int32[Array, "B T"],
    key_segments: Int32[Array, "B S"],
    key_positions: Int32[Array, "B S"],
    causal: Causal,
) -> Bool[Array, "B T S"]:
    """True where query t may see key s: same segment, not later, inside the window.

    Segment 0 is padding and is seen by nobody. Segments 1 1 2 0 at positions 0 1 0 0 without window give

        1 0 0 0
        1 1 0 0
        0 0 1 0
        0 0 0 0    a row without keys: `attend` gives it something finite, which nobody reads
    """
    return visible(query_segments, query_positions, key_segments, key_positions, causal.reach)


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    sight: Sight = Sight(),  # noqa: B008
    causal: Causal | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, "B T N H"]:
    """softmax(query key^T / sqrt(H)) value, each key-value head serving N / K neighbouring query heads.

    causal: queries and keys are the same row, or with a mask the queries its last ones; the order that `sight` was made
    for. Float32 inside, the result in the values' dtype. What queries without keys get is finite, differs between
    implementations, and passes back no gradient of its own that is not finite.
    """
    chosen = implementation_for(implementation, query.shape[1], key.shape[1])
    if sight.positions is not None and causal is not None:
        context = long_rows(query, key, value, sight.query_segments, sight.positions, causal.reach)
        return checkpoint_name(context, CONTEXT)
    if sight.mask is not None and query.shape[1] == 1 and _decodes_by_kernel(query, key, implementation):
        return attention_decode.decode_attention(query, key, value, sight.mask)
    if sight.mask is not None or chosen == "xla":
        assert sight.query_segments is None, "made for a kernel: give `attend` the implementation that made the sight"
        context = xla_attention(query, key, value, sight.mask, causal is not None)
        return checkpoint_name(context, CONTEXT)
    kernel = functools.partial(
        {"splash": splash_attention, "flash": flash_attention}[chosen],
        causal=causal is not None,
        reach=None if causal is None else causal.reach,
        checkpoint_name=CONTEXT,
        interpret=KERNELS.get(platform()) != chosen,
    )
    query_segments, key_segments = sight.query_segments, sight.key_segments
    if query_segments is None or key_segments is None:
        query_segments, key_segments = (jnp.ones(x.shape[:2], jnp.int32) for x in (query, key))
    return _on_every_device(kernel, query, key, value, query_segments, key_segments)


def implementation_for(implementation: str, length: int, keys: int) -> str:
    """xla, splash or flash, for rows of `length` queries and `keys` keys. Raises ValueError for another name."""
    if implementation == "auto":
        return KERNELS.get(platform(), "xla") if min(length, keys) >= SHORTEST_KERNEL_ROW else "xla"
    if implementation not in ("xla", *KERNELS.values()):
        raise ValueError(f"attention: got {implementation!r}, wanted auto, xla, splash or flash; choose one of these.")
    return implementation


def _decodes_by_kernel(query: Float[Array, "B T N H"], key: Float[Array, "B S K H"], implementation: str) -> bool:
    """Whether one query a row goes through the GPU's decoding kernel. Over a mesh XLA decodes, which can be cut."""
    possible = attention_decode.is_possible(query.shape[2] // key.shape[2], key.shape[1])
    return possible and on_one_gpu() and implementation in ("auto", "flash")


def _on_every_device(kernel, query, key, value, query_segments, key_segments) -> Float[Array, "B T N H"]:
    """The kernel on each device's own rows and heads, by the axis rules in force: the compiler cannot cut a kernel."""
    mesh = jax.sharding.get_abstract_mesh()
    if on_one_device() or mesh.manual_axes:
        return kernel(query, key, value, query_segments, key_segments)
    batch = _mesh_axes(mesh, "batch", query.shape[0])
    # Key-value heads and their queries are cut alike, or not at all.
    heads = jax.P(batch, None, _mesh_axes(mesh, "heads", key.shape[2]), None)
    row = jax.P(batch, None)
    # Kernels say nothing of how their results vary over devices, which check_vma wants to know.
    cut = jax.shard_map(kernel, in_specs=(heads, heads, heads, row, row), out_specs=heads, check_vma=False)
    return cut(query, key, value, query_segments, key_segments)


def _mesh_axes(mesh: jax.sharding.AbstractMesh, name: str, size: int) -> tuple[str, ...] | None:
    """Mesh axes over which an axis of this logical name is cut; None where they do not divide it, as for parameters."""
    axes = dict(nn.get_logical_axis_rules()).get(name) or ()
    axes = (axes,) if isinstance(axes, str) else tuple(axes)
    return axes if axes and size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None


def keep_attention(
    module: nn.Module,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    sight: Sight = Sight(),  # noqa: B008
    causal: Causal | None = None,
) -> None:
    """Sows the weights [B N T S] under the module's "attention", where a caller has made that collection mutable.

    Layers of a scan stack theirs on a leading axis. XLA computes them, whatever computes `attend`.
    """
    # While initialising every collection is mutable.
    if module.is_mutable_collection("attention") and not module.is_initializing():
        key = jnp.repeat(key, query.shape[2] // key.shape[2], axis=2)
        module.sow("attention", "weights", attention_weights(query, key, dense_mask(sight, causal)))


def dense_mask(sight: Sight, causal: Causal | None) -> Bool[Array, "B #T S"] | None:
    """The mask of a sight, True where a key is seen, whichever form the sight has; None where all are."""
    if sight.mask is not None or sight.query_segments is None:
        return sight.mask
    if causal is None:
        same = sight.query_segments[:, :, None] == sight.key_segments[:, None, :]
        return same & (sight.key_segments[:, None, :] > 0)
    if sight.positions is not None:
        return causal_mask(sight.query_segments, sight.positions, sight.key_segments, sight.positions, causal)
    rows = jnp.broadcast_to(jnp.arange(sight.key_segments.shape[1], dtype=jnp.int32)[None], sight.key_segments.shape)
    return causal_mask(sight.query_segments, rows, sight.key_segments, rows, causal)


def attention_weights(
    query: Float[Array, "B T N H"], key: Float[Array, "B S N H"], mask: Bool[Array, "B #T S"] | None = None
) -> Float[Array, "B N T S"]:
    """What `attend` weighs the values with, for pictures of where a model looks. Float32."""
    scores_BNTS = jnp.einsum(
        "BTNH,BSNH->BNTS", query * query.shape[-1] ** -0.5, key, preferred_element_type=jnp.float32
    )
    if mask is not None:
        scores_BNTS = jnp.where(mask[:, None], scores_BNTS, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores_BNTS, axis=-1)
