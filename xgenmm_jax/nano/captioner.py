"""The captioning decoder that the vision tower is pre-trained with; it is discarded afterwards.

Source: SigLIP 2 (arXiv 2502.14786, section 2.2) adds LocCa's decoder to the sigmoid loss; CapPa (arXiv 2306.07915)
mixes autoregressive and parallel prediction of the same caption in one decoder.
"""

from dataclasses import dataclass

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from xgenmm_jax.models.layers import Dtype, LayerNorm, Linear, MultiHeadAttention
from xgenmm_jax.models.remat import Remat, scan_layers
from xgenmm_jax.models.vit import EPSILON, FeedForward
from xgenmm_jax.ops.masks import AttentionMask


@dataclass(frozen=True)
class CaptionerConfig:
    width: int
    hidden: int
    layers: int
    heads: int
    vocab_size: int
    max_positions: int
    remat: Remat = "none"


class CaptionerBlock(nn.Module):
    """Pre-norm: self-attention, attention to the patch features, feed-forward."""

    config: CaptionerConfig
    dtype: Dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n T D"],
        features: Float[Array, "n P E"],
        mask: AttentionMask,
    ) -> tuple[Float[Array, "n T D"], None]:
        width, heads = self.config.width, self.config.heads
        x = checkpoint_name(x, "layer_input")
        normed = LayerNorm(width, EPSILON, self.dtype, name="norm1")(x)
        x = x + MultiHeadAttention(width, heads, "embed", self.dtype, name="self_attention")(normed, normed, mask)
        normed = LayerNorm(width, EPSILON, self.dtype, name="norm2")(x)
        x = x + MultiHeadAttention(width, heads, "embed", self.dtype, name="cross_attention")(normed, features)
        normed = LayerNorm(width, EPSILON, self.dtype, name="norm3")(x)
        return x + FeedForward(width, self.config.hidden, self.dtype, name="mlp")(normed), None


class Captioner(nn.Module):
    """Logits of a caption's tokens from patch features."""

    config: CaptionerConfig
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "n P E"],
        token_ids: Int32[Array, "n T"],
        parallel: Bool[Array, " n"],
    ) -> Float[Array, "n T V"]:
        """Float32 logits; those at t predict token_ids[:, t].

        token_ids: the caption from its first token, ended by an end token, padded at will (mask the loss there).
        parallel: False: position t is fed token t - 1 (a start vector at t = 0) and attends to itself and earlier
        ones. True: every position is fed the same mask vector and attends to all: only the image tells the tokens.
        """
        config = self.config
        length = token_ids.shape[1]
        if length > config.max_positions:
            raise ValueError(
                f"captioner: got {length} tokens, wanted at most {config.max_positions}; raise max_positions."
            )
        embedding_init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        table = self.param("embedding", embedding_init, (config.vocab_size, config.width))
        rows_init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "embed"))
        start, masked = self.param("start_and_mask", rows_init, (2, config.width))
        positions = self.param("position_embedding", rows_init, (config.max_positions, config.width))

        shifted_ids = jnp.pad(token_ids[:, :-1], ((0, 0), (1, 0)))
        is_start = (jnp.arange(length) == 0)[None, :, None]
        shifted = jnp.where(is_start, start[None, None], table[shifted_ids])
        x = jnp.where(parallel[:, None, None], masked[None, None], shifted) + positions[None, :length]
        causal = jnp.tril(jnp.ones((length, length), bool))
        mask = AttentionMask(dense=causal[None] | parallel[:, None, None])

        block = scan_layers(CaptionerBlock, config.layers, config.remat, broadcast_inputs=2)
        x, _ = block(config, self.dtype, name="layers")(x.astype(self.dtype), features, mask)
        x = LayerNorm(config.width, EPSILON, self.dtype, name="norm")(x)
        head = Linear(
            outputs=(config.vocab_size,),
            axes=("embed", "vocab"),
            kernel_init=nn.initializers.normal(config.width**-0.5),
            bias_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="head",
        )
        return head(x).astype(jnp.float32)


def greedy_caption(
    captioner: Captioner, params: dict, features: Float[Array, "n P E"], length: int
) -> Int32[Array, "n T"]:
    """The likeliest next token `length` times. It runs the whole decoder each time: captions are short."""
    parallel = jnp.zeros(features.shape[0], bool)

    def step(t, token_ids):
        logits = captioner.apply({"params": params}, features, token_ids, parallel)
        return token_ids.at[:, t].set(jnp.argmax(logits[:, t], axis=-1).astype(jnp.int32))

    return jax.lax.fori_loop(0, length, step, jnp.zeros((features.shape[0], length), jnp.int32))
