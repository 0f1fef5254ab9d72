"""Layers that every model shares: linear maps, norms and attention with named parameter axes, pixel scaling.

Parameters are float32 and carry logical axis names; `training/sharding.py` maps the names to mesh axes.
"""

from typing import Literal

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from xgenmm_jax.models import dropout, lora
from xgenmm_jax.models.dropout import Draws
from xgenmm_jax.ops.attention import attend, attention_weights, sow_attention_weights
from xgenmm_jax.ops.attention_choice import Implementation
from xgenmm_jax.ops.masks import AttentionMask, dense_mask
from xgenmm_jax.ops.matmul import Affine, matmul, norm_matmul
from xgenmm_jax.ops.partitioning import as_matrix, constrain

Dtype = Literal["float32", "bfloat16"]
"""Compute dtype. Norms, softmax, rotary angles, logits and losses are float32 whatever it is.

Logits in bfloat16 differ from float32's by 3e-3 to 4e-3 of the largest one (root mean square), the worst of some ten
thousand by 2e-2 as a rule and by 4e-2 at most: docs/design.md, Precision."""

Initializer = jax.nn.initializers.Initializer
KeyValue = tuple[Float[Array, "n _ N H"], Float[Array, "n _ N H"]]
"""Keys and values of an attention."""


def torch_linear_init(in_axis: int | tuple[int, ...] = 0, out_axis: int | tuple[int, ...] = -1) -> Initializer:
    """torch.nn.Linear's default weight: uniform within 1 / sqrt(inputs)."""
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=in_axis, out_axis=out_axis)


def symmetric_uniform(bound: float) -> Initializer:
    """Uniform in [-bound, bound)."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """A linear map from the last axes of its input, as many as `axes` names before the outputs, to `outputs`.

    axes: logical names, inputs then outputs. bias_init: None for no bias.
    """

    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    kernel_init: Initializer
    bias_init: Initializer | None = None
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "..."], norm: Affine | None = None) -> Float[Array, "..."]:
        """norm: of the layer norm before, where x is only standardized (`norm_matmul`)."""
        count = len(self.axes) - len(self.outputs)
        shape = (*x.shape[x.ndim - count :], *self.outputs)
        kernel = self.param("kernel", nn.with_logical_partitioning(self.kernel_init, self.axes), shape)
        kernel, x = kernel.astype(self.dtype), x if norm is not None else x.astype(self.dtype)
        matrix = as_matrix(kernel, self.axes, count)
        if matrix is None:
            y = matmul(x, kernel, count) if norm is None else norm_matmul(x, norm, kernel)
        else:
            rows = x.reshape(*x.shape[: x.ndim - count], matrix.shape[0])
            y = matmul(rows, matrix, 1) if norm is None else norm_matmul(rows, norm, matrix)
            y = y.reshape(*y.shape[:-1], *self.outputs)
        if self.has_variable("params", lora.DOWN):
            y = y + self._update(x if norm is None else norm(x), count)
        if self.bias_init is None:
            return y
        # A width that no table shards in activations ("embed", "vision_embed") is not sharded in the small bias.
        axes = tuple("norm" if axis in ("embed", "vision_embed") else axis for axis in self.axes[count:])
        bias = self.param("bias", nn.with_logical_partitioning(self.bias_init, axes), self.outputs)
        return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - bias.ndim) + bias.shape)

    def _update(self, x: Float[Array, "..."], count: int) -> Float[Array, "..."]:
        """What the low-rank update of this map adds (`models/lora.py`). count: axes of x that are inputs."""
        down, up, scale = (self.get_variable("params", name) for name in (lora.DOWN, lora.UP, lora.SCALE))
        x = x.astype(self.dtype)
        if self.has_variable("params", lora.DROPOUT) and self.has_rng(lora.STREAM):
            share = self.get_variable("params", lora.DROPOUT)
            keep = jax.random.bernoulli(self.make_rng(lora.STREAM), 1 - share, x.shape)
            x = jnp.where(keep, x / (1 - share).astype(self.dtype), 0)
        inner = matmul(x, down.astype(self.dtype), count)
        return matmul(inner, up.astype(self.dtype), 1) * scale.astype(self.dtype)


def torch_linear(
    inputs: int, outputs: int, axes: tuple[str | None, str | None], dtype: Dtype, name: str | None = None
) -> Linear:
    """A linear map that begins as torch.nn.Linear does: weight and bias uniform within 1 / sqrt(inputs)."""
    return Linear((outputs,), axes, torch_linear_init(), symmetric_uniform(inputs**-0.5), dtype, name=name)


def standardize(x: Float[Array, "*n E"], epsilon: float) -> Float[Array, "*n E"]:
    """Mean 0 and variance 1 along the last axis, in float32: a layer norm without scale and bias."""
    x = x.astype(jnp.float32)
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    # The two-pass variance: the one-pass form E[x^2] - E[x]^2 loses digits where the mean is large.
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + epsilon)


class LayerNorm(nn.Module):
    """Layer norm with scale and bias. Statistics and affine part in float32, result in `dtype`."""

    width: int
    epsilon: float
    dtype: Dtype = "float32"

    def setup(self):
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        self.scale = self.param("scale", nn.with_logical_partitioning(ones, ("norm",)), (self.width,))
        self.bias = self.param("bias", nn.with_logical_partitioning(zeros, ("norm",)), (self.width,))

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.affine(standardize(x, self.epsilon)).astype(self.dtype)

    @property
    def affine(self) -> Affine:
        """What follows `standardize`, for a linear map that takes it over."""
        return Affine(self.scale, self.bias)


class RMSNorm(nn.Module):
    """x / rms(x) times the weight, all in float32, rounded once to x's dtype.

    Hugging Face's Phi-3 rounds before the weight as well: the same in float32, one rounding more in bfloat16.
    """

    width: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        scale = self.param("scale", nn.with_logical_partitioning(nn.initializers.ones, ("norm",)), (self.width,))
        x_float32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x_float32), axis=-1, keepdims=True)
        normed = x_float32 * jax.lax.rsqrt(mean_square + self.epsilon)
        return (normed * scale.reshape((1,) * (x.ndim - 1) + (self.width,))).astype(x.dtype)


class MultiHeadAttention(nn.Module):
    """Attention with biases, of a sequence to itself or to a memory.

    Without memory, queries, keys and values come from one kernel `qkv` [D 3 N H]; with it, queries come from `query`
    [D N H], keys and values from `key_value` [E 2 N H]. axis: logical name of the widths D and E. init: of every
    kernel; None: Xavier's uniform, as torch.nn.MultiheadAttention draws them. dropout: share of attention weights and
    of outputs that is dropped where a call has `draws`.
    """

    width: int
    heads: int
    axis: str
    dtype: Dtype = "float32"
    implementation: Implementation = "auto"
    init: Initializer | None = None
    dropout: float = 0.0

    def __call__(
        self,
        query: Float[Array, "n T D"],
        memory: Float[Array, "n S E"] | None = None,
        mask: AttentionMask = AttentionMask(),  # noqa: B008
        draws: Draws = None,
    ) -> Float[Array, "n T D"]:
        return self.with_keys(query, memory, mask, None, draws)[0]

    @nn.compact
    def with_keys(
        self,
        query: Float[Array, "n T D"],
        memory: Float[Array, "n S E"] | None,
        mask: AttentionMask,
        earlier: KeyValue | None = None,
        draws: Draws = None,
    ) -> tuple[Float[Array, "n T D"], KeyValue]:
        """Gives the keys and values too. earlier: those of rows before these, read beside them. draws: of each row
        (`dropout.drop`); None: nothing is dropped."""
        if memory is None:
            qkv = checkpoint_name(self._several(3, "qkv")(query), "qkv")
            query, key, value = (qkv[..., part, :, :] for part in range(3))
        else:
            init = self.init or nn.initializers.xavier_uniform(in_axis=0, out_axis=(1, 2))
            query = self._linear(self._heads, (self.axis, "heads", "kv"), init, "query")(query)
            key_value = self._several(2, "key_value")(memory)
            query, key_value = checkpoint_name((query, key_value), "qkv")
            key, value = key_value[..., 0, :, :], key_value[..., 1, :, :]
        of_rows = key, value
        if earlier is not None:
            key, value = (jnp.concatenate(pair, axis=1) for pair in zip(earlier, of_rows, strict=True))
        sow_attention_weights(self, query, key, mask)
        if draws is None:
            context = attend(query, key, value, mask, implementation=self.implementation)
        else:
            weights = dropout.drop(self, attention_weights(query, key, dense_mask(mask, None)), self.dropout, draws)
            context = jnp.einsum("nNTS,nSNH->nTNH", weights.astype(value.dtype), value)
        init = self.init or nn.initializers.xavier_uniform(in_axis=(0, 1), out_axis=2)
        out = self._linear((self.width,), ("heads", "kv", self.axis), init, "out")(context)
        return dropout.drop(self, checkpoint_name(out, "out_proj"), self.dropout, draws), of_rows

    @property
    def _heads(self) -> tuple[int, int]:
        return self.heads, self.width // self.heads

    def _several(self, count: int, name: str) -> Linear:
        """`count` maps to all heads in one kernel, each drawn as if it stood alone."""
        init = self.init or nn.initializers.xavier_uniform(in_axis=0, out_axis=(2, 3), batch_axis=(1,))
        return self._linear((count, *self._heads), (self.axis, None, "heads", "kv"), init, name)

    def _linear(self, outputs: tuple[int, ...], axes: tuple[str | None, ...], init: Initializer, name: str) -> Linear:
        return Linear(outputs, axes, init, nn.initializers.zeros, self.dtype, name=name)


def shard_batch(x: Array) -> Array:
    """x, its first axis sharded as the batch is. Without axis rules (`nn.logical_axis_rules`) or mesh: x.

    Without it, the compiler may follow a parameter's sharding and gather activations where it should gather weights.
    """
    return constrain(x, ("batch",) + (None,) * (x.ndim - 1))


Channels = tuple[float, float, float]


def normalize_pixels(
    pixels: UInt8[Array, "*n h w 3"],
    dtype: Dtype = "float32",
    mean: Channels = (0.5, 0.5, 0.5),
    std: Channels = (0.5, 0.5, 0.5),
) -> Float[Array, "*n h w 3"]:
    """Pixels 0..255 as the tower takes them: (x / 255 - mean) / std, in float32 before the cast; by default -1..1."""
    channels = (1,) * (pixels.ndim - 1) + (3,)
    mean_3, std_3 = (jnp.asarray(value, jnp.float32).reshape(channels) for value in (mean, std))
    return ((pixels.astype(jnp.float32) / 255 - mean_3) / std_3).astype(dtype)
