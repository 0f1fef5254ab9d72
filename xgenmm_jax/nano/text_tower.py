"""The text tower of the contrastive loss: one vector of a caption. Like the captioner, it is discarded afterwards."""

from dataclasses import dataclass
import math
from typing import NamedTuple

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from xgenmm_jax.models.layers import Dtype, LayerNorm, Linear, MultiHeadAttention
from xgenmm_jax.models.remat import Remat, scan_layers
from xgenmm_jax.models.vit import EPSILON, FeedForward
from xgenmm_jax.ops.masks import AttentionMask, key_padding_mask


@dataclass(frozen=True)
class TextTowerConfig:
    """out_width: that of the vision tower's pooled vector. bias: start of the learned bias, None for a softmax loss."""

    width: int
    hidden: int
    layers: int
    heads: int
    vocab_size: int
    max_positions: int
    out_width: int
    scale: float = 10.0
    bias: float | None = -10.0
    remat: Remat = "none"


class Contrast(NamedTuple):
    """What a contrastive loss needs beside the images' vectors: logits = scale * image . text + bias."""

    text: Float[Array, "n E"]
    """Length 1."""
    scale: Float[Array, ""]
    bias: Float[Array, ""]
    """0 where the tower has none."""


class TextBlock(nn.Module):
    config: TextTowerConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "n T D"], mask: AttentionMask) -> tuple[Float[Array, "n T D"], None]:
        width = self.config.width
        x = checkpoint_name(x, "layer_input")
        normed = LayerNorm(width, EPSILON, self.dtype, name="norm1")(x)
        attention = MultiHeadAttention(width, self.config.heads, "embed", self.dtype, name="attention")
        x = x + attention(normed, normed, mask)
        normed = LayerNorm(width, EPSILON, self.dtype, name="norm2")(x)
        return x + FeedForward(width, self.config.hidden, self.dtype, name="mlp")(normed), None


class TextTower(nn.Module):
    """Bidirectional transformer, mean over the valid tokens, linear map, length 1."""

    config: TextTowerConfig
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, token_ids: Int32[Array, "n T"], valid: Bool[Array, "n T"]) -> Contrast:
        """valid: True for tokens of the caption, False for padding. The scale's parameter is its logarithm (SigLIP)."""
        config = self.config
        length = token_ids.shape[1]
        if length > config.max_positions:
            raise ValueError(
                f"text tower: got {length} tokens, wanted at most {config.max_positions}; raise max_positions."
            )
        table_init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        table = self.param("embedding", table_init, (config.vocab_size, config.width))
        position_init = nn.with_logical_partitioning(nn.initializers.normal(0.01), (None, "embed"))
        positions = self.param("position_embedding", position_init, (config.max_positions, config.width))
        log_scale = self.param("log_scale", nn.initializers.constant(math.log(config.scale)), ())
        bias = jnp.zeros(())
        if config.bias is not None:
            bias = self.param("bias", nn.initializers.constant(config.bias), ())

        x = (table[token_ids] + positions[None, :length]).astype(self.dtype)
        mask = key_padding_mask(valid, length, "auto")
        block = scan_layers(TextBlock, config.layers, config.remat, broadcast_inputs=1)
        x, _ = block(config, self.dtype, name="layers")(x, mask)
        x = LayerNorm(config.width, EPSILON, name="norm")(x)
        weight = valid[..., None].astype(jnp.float32)
        mean = (x * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
        text = Linear(
            outputs=(config.out_width,),
            axes=("embed", "vision_embed"),
            kernel_init=nn.initializers.normal(config.width**-0.5),
            bias_init=nn.initializers.zeros,
            name="out",
        )(mean)
        return Contrast(unit_length(text), jnp.exp(log_scale), bias)


def unit_length(x: Float[Array, "n E"]) -> Float[Array, "n E"]:
    """Vectors scaled to length 1, in float32. Apply it to the vision tower's pooled vectors too."""
    x = x.astype(jnp.float32)
    # Not jnp.linalg.norm: its gradient at a zero vector is NaN.
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)
