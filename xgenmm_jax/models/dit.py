"""The diffusion transformer of BLIP3-o: noised features, a time and states of the decoder to a velocity.

Source: docs/reference/blip3o.md#dit (diffusers' `LuminaNextDiT2DModel`, as BLIP3-o builds it).
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
    RMSNorm,
    shard_batch,
    standardize,
    symmetric_uniform,
    torch_linear,
    torch_linear_init,
)
from xgenmm_jax.models.remat import Remat, scan_layers
from xgenmm_jax.models.rotary import grid_angles, rotate_pairs
from xgenmm_jax.ops.attention import attend, sow_attention_weights
from xgenmm_jax.ops.attention_choice import Implementation
from xgenmm_jax.ops.masks import AttentionMask, key_padding_mask

TIME_FREQUENCIES = 128
"""Of the cosines and sines of a time, the slowest 10000^(-127 / 128)."""
MAX_CONDITION_WIDTH = 1024
OUT_EPSILON = 1e-6


@dataclass(frozen=True)
class DiTConfig:
    """Defaults are the released 4B's, which draws features of EVA-CLIP-E from states of Qwen2.5-VL-3B.

    channels: of the features. patch: cells along a side that become one token. context_width: of the decoder.
    multiple_of: the feed-forward's width is rounded up to it. epsilon: of all norms but the last.

    Raises ValueError where heads do not divide width or kv_heads heads, and for a width of a head that is no multiple
    of 4: half of it turns by row, half by column, two channels an angle.
    """

    channels: int = 1792
    width: int = 1792
    layers: int = 24
    heads: int = 28
    kv_heads: int = 28
    patch: int = 1
    context_width: int = 2048
    multiple_of: int = 256
    epsilon: float = 1e-5
    remat: Remat = "none"
    attention: Implementation = "auto"

    def __post_init__(self):
        for name in ("channels", "width", "layers", "heads", "kv_heads", "patch", "context_width", "multiple_of"):
            if getattr(self, name) < 1:
                raise ValueError(f"dit.{name}: got {getattr(self, name)}, wanted 1 or more.")
        if self.width % self.heads or self.head_width % 4:
            raise ValueError(
                f"dit: got width {self.width} for {self.heads} heads; choose heads whose width, width / heads, is a "
                "multiple of 4."
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"dit: got {self.kv_heads} kv_heads, which do not divide {self.heads} heads; choose such.")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Width of the feed-forward: 8 / 3 of the width, rounded up; 4864 at 1792."""
        return -(-(8 * self.width // 3) // self.multiple_of) * self.multiple_of

    @property
    def condition_width(self) -> int:
        """Of the vector of time and pooled context that every layer's scales and gates come from."""
        return min(self.width, MAX_CONDITION_WIDTH)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Tokens by row and column of height x width cells. Raises ValueError where patches do not cover them."""
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"dit: got {height} x {width} cells for patches of {self.patch}; choose multiples of {self.patch}."
            )
        return height // self.patch, width // self.patch


def time_features(time: Float32[Array, " B"]) -> Float32[Array, "B f"]:
    """Cosines, then sines, of the time times 10000^(-k / 128). time: 1000 for noise, 0 for data."""
    exponent = jnp.arange(TIME_FREQUENCIES, dtype=jnp.float32) / TIME_FREQUENCIES
    angle = time[:, None] * (10000.0**-exponent)[None]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class DiTBlock(nn.Module):
    """x += tanh(gate) norm(self- and cross-attention of norm(x)); the same of a feed-forward. Scales without shifts.

    Both attentions read one normed input and share the map behind them. Cross-attention has queries of its own, rotated
    by their cell as those of self-attention are, keys that are not rotated, and a gate for each head, 0 at the start.
    """

    config: DiTConfig
    dtype: Dtype

    @nn.compact
    def __call__(
        self,
        x: Float32[Array, "B T D"],
        condition: Float[Array, "B c"],
        context: Float[Array, "B Q D"],
        cos: Float32[Array, "1 T 1 h"],
        sin: Float32[Array, "1 T 1 h"],
        mask: AttentionMask,
    ) -> tuple[Float32[Array, "B T D"], None]:
        """condition: behind its SiLU. context: the projected states. mask: of the tokens on the context."""
        config, width = self.config, self.config.width
        x = checkpoint_name(x, "layer_input")
        modulation = Linear(
            outputs=(4, width),
            axes=("embed", None, None),
            kernel_init=torch_linear_init(out_axis=(1, 2)),
            bias_init=symmetric_uniform(config.condition_width**-0.5),
            dtype=self.dtype,
            name="modulation",
        )(condition)
        of_attention, gate_attention, of_mlp, gate_mlp = jnp.split(modulation.astype(jnp.float32), 4, axis=1)

        normed = RMSNorm(width, config.epsilon, name="attention_norm")(x) * (1 + of_attention)
        context_self = self._self_attention(normed, cos, sin)
        context_cross = self._cross_attention(normed, context, cos, sin, mask)
        gate = self.param("gate", nn.with_logical_partitioning(nn.initializers.zeros, ("heads",)), (config.heads,))
        gate_cross = jnp.tanh(gate)[None, None, :, None]
        attended = context_self.astype(jnp.float32) + gate_cross * context_cross.astype(jnp.float32)
        out = self._linear((width,), ("heads", "kv", "embed"), "out")(attended)
        out = checkpoint_name(out, "out_proj").astype(jnp.float32)
        x = x + jnp.tanh(gate_attention) * RMSNorm(width, config.epsilon, name="attention_out_norm")(out)

        normed = RMSNorm(width, config.epsilon, name="mlp_norm")(x) * (1 + of_mlp)
        gate_up = self._linear((2, config.hidden), ("embed", None, "mlp"), "gate_up")(normed)
        gate_up = checkpoint_name(gate_up, "mlp_in")
        gated = jax.nn.silu(gate_up[..., 0, :].astype(jnp.float32)) * gate_up[..., 1, :].astype(jnp.float32)
        down = self._linear((width,), ("mlp", "embed"), "down")(gated).astype(jnp.float32)
        x = x + jnp.tanh(gate_mlp) * RMSNorm(width, config.epsilon, name="mlp_out_norm")(down)
        return shard_batch(x), None

    def _self_attention(
        self, x: Float[Array, "B T D"], cos: Float32[Array, "1 T 1 h"], sin: Float32[Array, "1 T 1 h"]
    ) -> Float[Array, "B T N H"]:
        config = self.config
        group = config.heads // config.kv_heads
        # Each key-value head follows its queries, as in the decoder: sharding "heads" never splits a group.
        outputs = (config.kv_heads, group + 2, config.head_width)
        qkv = checkpoint_name(self._linear(outputs, ("embed", "heads", None, "kv"), "qkv")(x), "qkv")
        query = self._normed(qkv[..., :group, :], "query_norm")
        query, key = (rotate_pairs(y, cos, sin) for y in (query, self._normed(qkv[..., group, :], "key_norm")))
        sow_attention_weights(self, query, key)
        context = attend(query, key, qkv[..., group + 1, :], implementation=config.attention)
        self.sow("intermediates", "self_attention", context)
        return context

    def _cross_attention(
        self,
        x: Float[Array, "B T D"],
        context: Float[Array, "B Q D"],
        cos: Float32[Array, "1 T 1 h"],
        sin: Float32[Array, "1 T 1 h"],
        mask: AttentionMask,
    ) -> Float[Array, "B T N H"]:
        config = self.config
        outputs = (2, config.kv_heads, config.head_width)
        query = self._linear((config.heads, config.head_width), ("embed", "heads", "kv"), "cross_query")(x)
        context = RMSNorm(config.width, config.epsilon, name="context_norm")(context)
        key_value = self._linear(outputs, ("embed", None, "heads", "kv"), "cross_key_value")(context)
        query, key_value = checkpoint_name((query, key_value), "qkv")
        query = rotate_pairs(self._normed(query, "cross_query_norm"), cos, sin)
        key = self._normed(key_value[..., 0, :, :], "cross_key_norm")
        sow_attention_weights(self, query, key, mask)
        read = attend(query, key, key_value[..., 1, :, :], mask, implementation=config.attention)
        self.sow("intermediates", "cross_attention", read)
        return read

    def _normed(self, x: Float[Array, "B T *n H"], name: str) -> Float[Array, "B T N H"]:
        """A layer norm across all heads together."""
        together = x.reshape(*x.shape[:2], -1)
        normed = LayerNorm(together.shape[-1], self.config.epsilon, self.dtype, name=name)(together)
        return normed.reshape(*x.shape[:2], -1, self.config.head_width)

    def _linear(self, outputs: tuple[int, ...], axes: tuple[str | None, ...], name: str) -> Linear:
        """A linear map as torch begins it, without bias."""
        inputs = len(axes) - len(outputs)
        init = torch_linear_init(tuple(range(inputs)), tuple(range(inputs, len(axes))))
        return Linear(outputs, axes, init, dtype=self.dtype, name=name)


class DiT(nn.Module):
    """The velocity of features under flow matching. The stream, the time and the result are float32 at any dtype."""

    config: DiTConfig
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B h w C"],
        time: Float32[Array, " B"],
        context: Float[Array, "B Q H"],
        context_mask: Bool[Array, "B Q"] | None = None,
    ) -> Float32[Array, "B h w C"]:
        """x: noised features on a grid of any size. time: 1000 sigma, 1000 for noise and 0 for data.

        context: the decoder's states. context_mask: True where one is read; a sample without any reads zeros pooled,
        and something finite otherwise. By default all are read.

        Raises ValueError where channels or context are of another width than the config's, or patches do not cover x.
        """
        config, (batch, height, width, channels) = self.config, x.shape
        if (channels, context.shape[-1]) != (config.channels, config.context_width):
            raise ValueError(
                f"dit: got features of {channels} channels and a context of width {context.shape[-1]}, the config has "
                f"{config.channels} and {config.context_width}; change dit.channels or dit.context_width."
            )
        rows, columns = config.grid(height, width)
        patch, tokens = config.patch, rows * columns
        # Tokens of patches in raster order.
        patches = x.reshape(batch, rows, patch, columns, patch, channels).swapaxes(2, 3)
        stream = Linear(
            outputs=(config.width,),
            axes=(None, None, None, "embed"),
            kernel_init=torch_linear_init((0, 1, 2), 3),
            bias_init=symmetric_uniform((patch**2 * channels) ** -0.5),
            dtype=self.dtype,
            name="patch_embedding",
        )(patches.reshape(batch, tokens, patch, patch, channels))
        # What conditions them.
        context = self._linear(config.context_width, config.width, ("embed", "mlp"), "context_fc1")(context)
        context = self._linear(config.width, config.width, ("mlp", "embed"), "context_fc2")(
            jax.nn.gelu(context, approximate=True)
        )
        condition = jax.nn.silu(self._condition(time, context, context_mask))
        mask = AttentionMask()
        if context_mask is not None:
            mask = key_padding_mask(context_mask, tokens, config.attention)
        cos, sin = grid_angles(rows, columns, config.head_width)

        block = scan_layers(DiTBlock, config.layers, config.remat, broadcast_inputs=5)
        stream = shard_batch(stream.astype(jnp.float32))
        stream, _ = block(config, self.dtype, name="layers")(stream, condition, context, cos, sin, mask)
        scale = self._linear(config.condition_width, config.width, ("embed", None), "out_modulation")(condition)
        normed = standardize(stream, OUT_EPSILON) * (1 + scale.astype(jnp.float32)[:, None])
        out = Linear(
            outputs=(patch, patch, channels),
            axes=("embed", None, None, None),
            kernel_init=torch_linear_init(0, (1, 2, 3)),
            bias_init=symmetric_uniform(config.width**-0.5),
            dtype=self.dtype,
            name="out",
        )(normed)
        out = out.astype(jnp.float32).reshape(batch, rows, columns, patch, patch, channels).swapaxes(2, 3)
        return out.reshape(batch, height, width, channels)

    def _condition(
        self, time: Float32[Array, " B"], context: Float[Array, "B Q D"], context_mask: Bool[Array, "B Q"] | None
    ) -> Float32[Array, "B c"]:
        """Time and pooled context as one vector, in float32: a time of 930 rad loses all its digits in bfloat16."""
        wide, width = self.config.condition_width, self.config.width
        features = time_features(time)
        x = torch_linear(features.shape[-1], wide, (None, "embed"), "float32", "time_fc1")(features)
        of_time = torch_linear(wide, wide, ("embed", None), "float32", "time_fc2")(jax.nn.silu(x))
        context = context.astype(jnp.float32)
        if context_mask is None:
            mean = jnp.mean(context, axis=1)
        else:
            is_read = context_mask.astype(jnp.float32)[..., None]
            mean = jnp.sum(context * is_read, axis=1) / jnp.maximum(jnp.sum(is_read, axis=1), 1)
        mean = LayerNorm(width, self.config.epsilon, name="pooled_norm")(mean)
        condition = of_time + torch_linear(width, wide, ("embed", None), "float32", "pooled_projection")(mean)
        self.sow("intermediates", "condition", condition)
        return condition

    def _linear(self, inputs: int, outputs: int, axes: tuple[str | None, str | None], name: str) -> Linear:
        return torch_linear(inputs, outputs, axes, self.dtype, name)
