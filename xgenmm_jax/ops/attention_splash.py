"""Attention on a TPU: JAX's splash kernels, which never hold a score outside of the chip's vector memory.

The kernels know causal order, windows and segment ids; this file gives them blocks and shapes that they take.
"""

import jax
from jax.experimental.pallas.ops.tpu import splash_attention as splash
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

LANES = 128
"""Blocks are multiples of a TPU register's lanes."""

LARGEST_BLOCK = 1024
"""Positions of a block at most, queries and keys alike. Published configs have 512 to 2048; 2048 exceeds the vector
memory that v4 gives a kernel without a flag (24.8 of 16 MB), and of a causal row of 4096 it computes 3 blocks of 4
where 1024 computes 10 of 16. No TPU has timed it here."""

LARGEST_COMPUTED = 512
"""Blocks of more keys than this are computed in two halves, where a half is whole lanes."""

MOST_FUSED_BLOCKS = 4
"""The fused backward pass reads keys and queries once for all three gradients, but writes dQ once per block of keys:
beyond so many blocks the two separate kernels are taken, which skip what causal order and window hide."""


def splash_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    query_segments: Int32[Array, "B T"],
    key_segments: Int32[Array, "B S"],
    *,
    causal: bool,
    left: int | None,
    checkpoint_name: str,
    interpret: bool,
) -> Float[Array, "B T N H"]:
    """softmax(query key^T / sqrt(H)) value over the keys of a query's own segment, segment 0 being one of them.

    causal: only keys that are not later; of these the `left` before the query and its own, or all where it is None.
    Both count rows of the array. checkpoint_name: what a remat policy calls the result. interpret: run on a CPU.

    Rows of any length: they are padded to whole blocks, and the padding is segment 0.
    """
    length, heads, width = query.shape[1:]
    block_q, padded_q = blocks(length)
    block_kv, padded_kv = blocks(key.shape[1])
    if not causal:
        mask = splash.FullMask((padded_q, padded_kv))
    elif left is None or left >= length:
        mask = splash.CausalMask((padded_q, padded_kv))
    else:
        mask = splash.LocalMask((padded_q, padded_kv), (left, 0), 0)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=_block_sizes(block_q, block_kv, padded_kv),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=checkpoint_name,
        interpret=interpret,
    )
    segments = splash.SegmentIds(
        q=jnp.pad(query_segments, ((0, 0), (0, padded_q - length))),
        kv=jnp.pad(key_segments, ((0, 0), (0, padded_kv - key.shape[1]))),
    )
    query_BNTH = _heads_first(query * width**-0.5, padded_q)
    context = jax.vmap(kernel)(query_BNTH, _heads_first(key, padded_kv), _heads_first(value, padded_kv), segments)
    return context[:, :, :length].transpose(0, 2, 1, 3)


def blocks(length: int) -> tuple[int, int]:
    """(block, padded length): as few blocks as LARGEST_BLOCK allows, each a multiple of LANES.

    729 patches give one block of 768; 2176 positions three of 768; 4096 four of 1024.
    """
    count = -(-length // LARGEST_BLOCK)
    block = -(-length // (count * LANES)) * LANES
    return block, count * block


def _block_sizes(block_q: int, block_kv: int, padded_kv: int) -> splash.BlockSizes:
    halved = block_kv > LARGEST_COMPUTED and block_kv // 2 % LANES == 0
    computed = block_kv // 2 if halved else block_kv
    fused = padded_kv // block_kv <= MOST_FUSED_BLOCKS
    return splash.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_kv_compute=computed,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_kv_dkv_compute=computed,
        block_q_dq=None if fused else block_q,
        block_kv_dq=None if fused else block_kv,
        use_fused_bwd_kernel=fused,
    )


def _heads_first(x: Float[Array, "B T N H"], padded: int) -> Float[Array, "B N t H"]:
    return jnp.pad(x.transpose(0, 2, 1, 3), ((0, 0), (0, 0), (0, padded - x.shape[1]), (0, 0)))
