"""The decoder of Phi-3's and Llama's shape, with xGen-MM's decoupled embedding and biased head; packed rows or a cache.

Source: docs/reference/xgenmm.md#phi-3, docs/reference/xgenmm.md#embeddings-and-head (transformers' `phi3`,
IDEFICS' decoupled layers); docs/reference/checkpoints.md#llama-names (transformers' `llama` and `qwen2`).
"""

from dataclasses import dataclass
from typing import Any

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from xgenmm_jax.models.kv_cache import Cache
from xgenmm_jax.models.layers import Dtype, Linear, RMSNorm, shard_batch, symmetric_uniform
from xgenmm_jax.models.remat import Remat, scan_layers
from xgenmm_jax.models.rotary import LongContext, rotary_angles, rotate
from xgenmm_jax.ops.attention import attend, sow_attention_weights
from xgenmm_jax.ops.attention_choice import Implementation
from xgenmm_jax.ops.masks import AttentionMask, SlidingWindow, WindowConvention, causal_mask, packed_causal_mask
from xgenmm_jax.ops.matmul import matmul


@dataclass(frozen=True)
class Phi3Config:
    """Defaults are Phi-3-mini-4k-instruct as in the released 4B.

    vocab_size: rows of embedding and head, padded; the first num_text_tokens are the tokenizer's, the rest is unused.
    num_extra_tokens: ids from num_text_tokens on, with embedding rows and head columns of their own.
    attention: what computes packed rows; with a cache it is XLA always.
    head_dim: width of a head, where it is not width / heads. long_context: Llama 3's stretched angles.
    qkv_bias: as Qwen2's. tied_head: the head's columns are the embedding's rows, those of the extra tokens excepted.
    """

    vocab_size: int = 32064
    num_text_tokens: int = 32012
    num_extra_tokens: int = 3
    width: int = 3072
    hidden: int = 8192
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    rope_theta: float = 10000.0
    epsilon: float = 1e-5
    window: WindowConvention = WindowConvention.W_PLUS_1
    window_size: int = 2047
    init_std: float = 0.02
    embedding_std: float | None = None
    """Of the embeddings at the start, where it is not `init_std`."""
    remat: Remat = "none"
    attention: Implementation = "auto"
    head_dim: int | None = None
    long_context: LongContext | None = None
    qkv_bias: bool = False
    tied_head: bool = False

    @property
    def sliding_window(self) -> SlidingWindow:
        return SlidingWindow.of(self.window, self.window_size)

    @property
    def head_width(self) -> int:
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def logits(self) -> int:
        """Width of the logits: num_text_tokens + num_extra_tokens."""
        return self.num_text_tokens + self.num_extra_tokens


class DecoderBlock(nn.Module):
    """Pre-norm: x += attention(norm(x)); x += down(up * silu(gate)) of norm(x). No biases but of qkv.

    No `MultiHeadAttention`: between the linear maps stand rotary embedding and cache, and heads are grouped.
    """

    config: Phi3Config
    dtype: Dtype

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "B T D"], tuple[Array, Array] | None],
        layer: Int32[Array, ""],
        cos: Float[Array, "B T 1 H"],
        sin: Float[Array, "B T 1 H"],
        mask: AttentionMask,
        start: Int32[Array, ""] | int,
    ) -> tuple[tuple[Float[Array, "B T D"], tuple[Array, Array] | None], None]:
        """carry: the stream and, while decoding, keys and values of all layers, updated from index `start` on."""
        config = self.config
        x, cached = carry
        x = checkpoint_name(x, "layer_input")
        width, kv_heads, head_width = config.width, config.kv_heads, config.head_width
        group = config.heads // kv_heads
        init = nn.initializers.normal(config.init_std)

        # Each key-value head follows its queries, so that sharding "heads" never splits a group.
        qkv = Linear(
            outputs=(kv_heads, group + 2, head_width),
            axes=("embed", "heads", None, "kv"),
            kernel_init=init,
            bias_init=nn.initializers.zeros if config.qkv_bias else None,
            dtype=self.dtype,
            name="qkv_proj",
        )(RMSNorm(width, config.epsilon, name="input_norm")(x))
        qkv = checkpoint_name(qkv, "qkv")
        query = rotate(qkv[..., :group, :].reshape(*x.shape[:2], config.heads, head_width), cos, sin)
        key = rotate(qkv[..., group, :], cos, sin)
        value = qkv[..., group + 1, :]
        if cached is not None:
            corner = (layer, 0, start, 0, 0)
            cached = tuple(
                jax.lax.dynamic_update_slice(all_layers, new[None].astype(all_layers.dtype), corner)
                for all_layers, new in zip(cached, (key, value), strict=True)
            )
            written = mask.dense.shape[2]
            key, value = (
                jax.lax.dynamic_index_in_dim(a, layer, keepdims=False)[:, :written].astype(self.dtype) for a in cached
            )
        # A prompt at an index known at compile time: the mask ends with it, so its queries are the last of the keys.
        window = config.sliding_window if cached is None or written < cached[0].shape[2] else None
        sow_attention_weights(self, query, key, mask, window)
        out = Linear(
            outputs=(width,),
            axes=("heads", "kv", "embed"),
            kernel_init=init,
            dtype=self.dtype,
            name="o_proj",
        )(attend(query, key, value, mask, window, config.attention))
        x = x + checkpoint_name(out, "out_proj")

        gate_up = Linear(
            outputs=(2, config.hidden),
            axes=("embed", None, "mlp"),
            kernel_init=init,
            dtype=self.dtype,
            name="gate_up_proj",
        )(RMSNorm(width, config.epsilon, name="post_attention_norm")(x))
        gate_up = checkpoint_name(gate_up, "mlp_in")
        x = x + Linear((width,), ("mlp", "embed"), init, dtype=self.dtype, name="down_proj")(
            gate_up[..., 1, :] * jax.nn.silu(gate_up[..., 0, :])
        )
        return (shard_batch(x), cached), None


class Phi3(nn.Module):
    """Decoder: `embed` ids, `hidden` states of packed rows, `logits` of hidden states, `extend` with a cache."""

    config: Phi3Config
    dtype: Dtype = "float32"

    def setup(self):
        config = self.config
        normal = nn.initializers.normal(config.init_std)
        zero_centered = symmetric_uniform(config.width**-0.5)
        embedding_std = config.init_std if config.embedding_std is None else config.embedding_std
        words = nn.initializers.normal(embedding_std)
        rows = nn.with_logical_partitioning(words, ("vocab", "embed"))
        more = nn.with_logical_partitioning(words, (None, "embed"))
        self.embedding = self.param("embedding", rows, (config.vocab_size, config.width))
        self.additional_embedding = self.param("additional_embedding", more, (config.num_extra_tokens, config.width))
        if not config.tied_head:
            columns = nn.with_logical_partitioning(normal, ("embed", "vocab"))
            self.head_kernel = self.param("head_kernel", columns, (config.width, config.vocab_size))
        self.head_bias = self.param(
            "head_bias", nn.with_logical_partitioning(zero_centered, ("vocab",)), (config.vocab_size,)
        )
        self.additional_head_kernel = self.param(
            "additional_head_kernel",
            nn.with_logical_partitioning(normal, ("embed", None)),
            (config.width, config.num_extra_tokens),
        )
        self.additional_head_bias = self.param(
            "additional_head_bias", nn.with_logical_partitioning(zero_centered, (None,)), (config.num_extra_tokens,)
        )
        self.layers = scan_layers(DecoderBlock, config.layers, config.remat, scanned_inputs=1, broadcast_inputs=4)(
            config, self.dtype
        )
        self.norm = RMSNorm(config.width, config.epsilon)

    def __call__(
        self,
        token_ids: Int32[Array, "B T"],
        segment_ids: Int32[Array, "B T"],
        positions: Int32[Array, "B T"],
    ) -> Float[Array, "B T V"]:
        """Float32 logits of packed text: those at t predict the token at t + 1. Segment 0 is padding."""
        return self.logits(self.hidden(self.embed(token_ids), segment_ids, positions))

    def embed(self, token_ids: Int32[Array, "*n"]) -> Float[Array, "*n D"]:
        """Ids from num_text_tokens on take the rows of the extra tokens."""
        first = self.config.num_text_tokens
        rows = self.embedding[jnp.minimum(token_ids, first - 1)]
        # A choice per row and no second gather: its gradient is three sums instead of a scatter over all positions.
        for number in range(self.config.num_extra_tokens):
            is_row = (token_ids == first + number)[..., None]
            row = self.additional_embedding[number].reshape((1,) * token_ids.ndim + (-1,))
            rows = jnp.where(is_row, row, rows)
        return rows.astype(self.dtype)

    def hidden(
        self,
        embeddings: Float[Array, "B T D"],
        segment_ids: Int32[Array, "B T"],
        positions: Int32[Array, "B T"],
    ) -> Float[Array, "B T D"]:
        """States after the last norm. Positions attend to earlier ones of their segment, within the window.

        Positions count up one by one inside a segment, else windows differ between implementations of attention
        (`packed_causal_mask`).
        """
        config = self.config
        mask = packed_causal_mask(segment_ids, positions, config.sliding_window, config.attention)
        return self._run(embeddings, None, positions, mask, 0)[0]

    def extend(
        self,
        embeddings: Float[Array, "B T D"],
        segment_ids: Int32[Array, "B T"],
        positions: Int32[Array, "B T"],
        cache: Cache,
        start: Int32[Array, ""] | int,
        layers: tuple[Any, ...] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """States of T new tokens that attend to the cache and themselves, and the cache with them at start..start + T.

        layers: each layer's parameters by itself, with a cache of `unstack_layers`; else the module's own, stacked.

        Prefill is T = prompt at start 0 of an empty cache, one decoding step T = 1. Rows are left-padded: padding has
        segment 0, and the tokens of a row one segment and positions counted from its first token.

        No query attends to padding, but padding attends to what is before it, rotated as position 1: left padding never
        matters, and a prompt that ends in pad ids is continued from the last of them, as by Hugging Face's generate.
        """
        config = self.config
        corner = (0, 0, start)
        cache = cache._replace(
            segment_ids=jax.lax.dynamic_update_slice(cache.segment_ids, segment_ids[None], corner),
            positions=jax.lax.dynamic_update_slice(cache.positions, positions[None], corner),
        )
        length, written = segment_ids.shape[1], cache.segment_ids.shape[2]
        if isinstance(start, int) and length > 1:
            written = start + length
        dense = causal_mask(
            jnp.maximum(segment_ids, 1),
            positions,
            cache.segment_ids[0, :, :written],
            cache.positions[0, :, :written],
            config.sliding_window.left,
        )
        mask = AttentionMask(dense)
        rotated_positions = jnp.where(segment_ids > 0, positions, 1)
        if layers is None:
            hidden, key_value = self._run(embeddings, (cache.key, cache.value), rotated_positions, mask, start)
            return hidden, Cache(*key_value, cache.segment_ids, cache.positions)
        cos, sin = rotary_angles(rotated_positions, config.head_width, config.rope_theta, config.long_context)
        block = DecoderBlock(config, self.dtype, parent=None)
        x, layer_caches = embeddings.astype(self.dtype), []
        for params, *cached in zip(layers, cache.key, cache.value, strict=True):
            carry = (x, tuple(cached))
            # Layer 0: the only one of its cache.
            (x, cached), _ = block.apply({"params": params}, carry, jnp.int32(0), cos, sin, mask, start)
            layer_caches.append(cached)
        keys, values = zip(*layer_caches, strict=True)
        return self.norm(x), Cache(keys, values, cache.segment_ids, cache.positions)

    def _run(
        self,
        embeddings: Float[Array, "B T D"],
        cached: tuple[Array, Array] | None,
        positions: Int32[Array, "B T"],
        mask: AttentionMask,
        start: Int32[Array, ""] | int,
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array] | None]:
        config = self.config
        cos, sin = rotary_angles(positions, config.head_width, config.rope_theta, config.long_context)
        layers = jnp.arange(config.layers, dtype=jnp.int32)
        x = shard_batch(embeddings.astype(self.dtype))
        (x, cached), _ = self.layers((x, cached), layers, cos, sin, mask, start)
        return self.norm(x), cached

    def logits(self, hidden: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Float32 logits of any hidden states, of selected positions for instance: text tokens, then the extra ones."""
        count, total = self.config.num_text_tokens, self.config.logits

        def columns(out: Float[Array, "*n v"], bias: Array, before: int) -> Array:
            """With the bias, as columns that begin at `before`, among `total` of them."""
            out += bias.reshape((1,) * (out.ndim - 1) + bias.shape)
            behind = max(total - before - out.shape[-1], 0)
            return jnp.pad(out, ((0, 0),) * (out.ndim - 1) + ((before, behind),))[..., :total]

        # Joined are the logits, as they are read: joined kernels would be a copy of the head for every call.
        if self.config.tied_head:
            # Along the rows as they lie: a transposed table would be a copy of it for every token.
            axes = (((hidden.ndim - 1,), (1,)), ((), ()))
            rows = self.embedding.astype(self.dtype)
            words = jax.lax.dot_general(hidden, rows, axes, preferred_element_type=jnp.float32)
        else:
            words = matmul(hidden, self.head_kernel.astype(self.dtype), 1, jnp.float32)
        words = columns(words, self.head_bias, 0)
        more = matmul(hidden, self.additional_head_kernel.astype(self.dtype), 1, jnp.float32)
        more = columns(more, self.additional_head_bias, count)
        is_word = jnp.arange(total) < count
        return jnp.where(is_word.reshape((1,) * (words.ndim - 1) + (-1,)), words, more)
