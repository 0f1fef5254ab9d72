"""The perceiver resampler: any number of patch features to Q vectors of the decoder's width.

Source: docs/reference/xgenmm.md#resampler (open_flamingo's PerceiverResampler as changed by xGen-MM: the projection
stands at the end); the instruction-aware variant is that of the v1 release
(docs/reference/checkpoints.md#v1-differences).
"""

from dataclasses import dataclass

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from xgenmm_jax.models.layers import (
    Dtype,
    LayerNorm,
    Linear,
    shard_batch,
    standardize,
    torch_linear,
    torch_linear_init,
)
from xgenmm_jax.models.remat import Remat, scan_layers
from xgenmm_jax.ops.attention import attend, sow_attention_weights
from xgenmm_jax.ops.attention_choice import Implementation
from xgenmm_jax.ops.masks import AttentionMask, key_padding_mask

EPSILON = 1e-5


@dataclass(frozen=True)
class ResamplerConfig:
    """Defaults are the released 4B's. width is the tower's, out_width the decoder's.

    instruction_tokens: how many of the prompt's token embeddings join the queries; 0: not instruction-aware.
    """

    width: int = 1152
    layers: int = 6
    heads: int = 16
    head_width: int = 96
    hidden: int = 4608
    queries: int = 128
    out_width: int = 3072
    instruction_tokens: int = 0
    remat: Remat = "none"
    attention: Implementation = "auto"


class ResamplerBlock(nn.Module):
    """Latents attend to media and to themselves, then a feed-forward without biases.

    No `MultiHeadAttention`: keys come from two inputs through one kernel, which takes over the media's norm, and the
    maps have open_flamingo's names, draws and no biases.
    """

    config: ResamplerConfig
    dtype: Dtype

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "n Q E"],
        media: Float32[Array, "n S E"],
        mask: AttentionMask,
    ) -> tuple[Float[Array, "n Q E"], None]:
        """media: standardized. mask: of the latents on the S media and then on themselves, S + Q keys."""
        config = self.config
        width, heads, head_width = config.width, config.heads, config.head_width
        latents = checkpoint_name(latents, "layer_input")
        norm_media = LayerNorm(width, EPSILON, self.dtype, name="norm_media").affine
        normed = LayerNorm(width, EPSILON, self.dtype, name="norm_latents")(latents)
        query = Linear(
            outputs=(heads, head_width),
            axes=("vision_embed", "heads", "kv"),
            kernel_init=torch_linear_init(out_axis=(1, 2)),
            dtype=self.dtype,
            name="to_q",
        )(normed)
        to_kv = Linear(
            outputs=(2, heads, head_width),
            axes=("vision_embed", None, "heads", "kv"),
            kernel_init=torch_linear_init(out_axis=(1, 2, 3)),
            dtype=self.dtype,
            name="to_kv",
        )
        key_value = jnp.concatenate([to_kv(media, norm_media), to_kv(normed)], axis=1)
        query, key_value = checkpoint_name((query, key_value), "qkv")
        key, value = key_value[..., 0, :, :], key_value[..., 1, :, :]
        sow_attention_weights(self, query, key, mask)
        out = Linear(
            outputs=(width,),
            axes=("heads", "kv", "vision_embed"),
            kernel_init=torch_linear_init(in_axis=(0, 1)),
            dtype=self.dtype,
            name="to_out",
        )(attend(query, key, value, mask, implementation=config.attention))
        latents = latents + checkpoint_name(out, "out_proj")
        normed = LayerNorm(width, EPSILON, self.dtype, name="norm_ff")(latents)
        up = Linear((config.hidden,), ("vision_embed", "mlp"), torch_linear_init(), dtype=self.dtype, name="ff1")(
            normed
        )
        down = Linear((width,), ("mlp", "vision_embed"), torch_linear_init(), dtype=self.dtype, name="ff2")(
            jax.nn.gelu(checkpoint_name(up, "mlp_in"), approximate=False)
        )
        return shard_batch(latents + down), None


class Resampler(nn.Module):
    """Q vectors for each group of features. There are no position embeddings: the features carry their own."""

    config: ResamplerConfig
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        media: Float[Array, "n S E"],
        media_mask: Bool[Array, "n S"],
        instruction: Float[Array, "n U D"] | None = None,
        instruction_mask: Bool[Array, "n U"] | None = None,
    ) -> Float[Array, "n Q D"]:
        """media_mask: True where a feature is attended to; a group may have none, the latents attend to themselves too.

        instruction: text embeddings; projected, they stand beside the latents as queries and keys, and only the
        latents' outputs are returned. Padding is masked; the v1 release computed this mask and did not use it.
        """
        config = self.config
        groups = media.shape[0]
        latents = self.param(
            "latents",
            nn.with_logical_partitioning(nn.initializers.normal(1.0), (None, "vision_embed")),
            (config.queries, config.width),
        )
        # The residual stream stays float32: latents are few, and rounding it was most of bfloat16's error.
        x = jnp.broadcast_to(latents.astype(jnp.float32)[None], (groups, config.queries, config.width))
        query_mask = jnp.ones((groups, config.queries), bool)
        if config.instruction_tokens:
            if instruction is None or instruction_mask is None:
                raise ValueError(
                    "resampler: got no instruction, but instruction_tokens is "
                    f"{config.instruction_tokens}; pass the prompt's embeddings and mask, or set it to 0."
                )
            x = jnp.concatenate([x, self.project_instruction(instruction)], axis=1)
            query_mask = jnp.concatenate([query_mask, instruction_mask], axis=1)
        mask = key_padding_mask(jnp.concatenate([media_mask, query_mask], axis=1), x.shape[1], config.attention)

        block = scan_layers(ResamplerBlock, config.layers, config.remat, broadcast_inputs=2)
        x, _ = block(config, self.dtype, name="layers")(x, standardize(media, EPSILON), mask)
        x = LayerNorm(config.width, EPSILON, self.dtype, name="norm")(x[:, : config.queries])
        return torch_linear(config.width, config.out_width, ("vision_embed", "embed"), self.dtype, "projection")(x)

    def project_instruction(self, instruction: Float[Array, "n U D"]) -> Float[Array, "n U E"]:
        """Linear, GELU, Linear, from the decoder's width to the tower's."""
        out, width = self.config.out_width, self.config.width
        x = torch_linear(out, width, ("embed", "vision_embed"), self.dtype, "text_projection1")(instruction)
        x = jax.nn.gelu(x, approximate=False)
        return torch_linear(width, width, ("vision_embed", None), self.dtype, "text_projection2")(x)
