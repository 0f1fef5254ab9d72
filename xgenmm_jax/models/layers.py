"""Parts that every model shares: linear maps and norms with named parameter axes, scanned layers, pixel scaling.

Parameters are float32 and carry logical axis names; `training/sharding.py` maps the names to mesh axes.
"""

from typing import Any, Literal, get_args

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from xgenmm_jax.ops.matmul import MATMUL, Affine, matmul, norm_matmul
from xgenmm_jax.ops.partitioning import constrain

LOGICAL_AXES = {
    "batch": "rows of the batch, or their crops; on activations only",
    "layers": "layers stacked by the scan",
    "embed": "decoder width D",
    "mlp": "hidden width F of a feed-forward, in decoder, tower and resampler alike",
    "heads": "attention heads; in the decoder's fused kernel the key-value heads K, each with its queries",
    "kv": "width H of one head",
    "vocab": "rows of the vocabulary",
    "vision_embed": "width E of tower and resampler",
    "norm": "scales and biases of norms, biases of linear maps that are not mlp, heads or vocab",
}
"""Every name that a parameter axis can carry. Axes that are never worth cutting carry None."""

Dtype = Literal["float32", "bfloat16"]
"""Compute dtype. Norms, softmax, rotary angles, logits and losses are float32 whatever it is.

Logits in bfloat16 differ from float32's by 3e-3 to 4e-3 of the largest one (root mean square), the worst of some ten
thousand by 2e-2 as a rule and by 4e-2 at most: docs/design.md, Precision."""

LAYER_NAMES = {
    "layer_input": "the stream that enters the layer",
    "qkv": "queries, keys and values as they leave their linear maps",
    "context": "attention's result, and the sums of its softmax where a kernel gives them",
    "out_proj": "the linear map behind attention",
    "mlp_in": "the linear maps into the feed-forward, before the activation",
    MATMUL: "the result of every linear map",
}
"""What a rematerialisation policy can name; every block that is scanned marks all of them (`checkpoint_name`). The
feed-forward's result has no name of its own: no backward pass needs it, only the sum that enters the next layer."""

Remat = Literal[
    "none",
    "minimal_with_context",
    "minimal",
    "save_dot_with_context_except_mlp",
    "save_dot_except_mlp",
    "save_qkv_proj",
    "save_out_proj",
    "full",
    "minimal_offloaded",
    "qkv_offloaded",
    "inputs_offloaded",
]
"""What the backward pass keeps of a layer, from most memory and least time to the reverse; then what goes to the host's
memory meanwhile. none: everything. minimal: results of linear maps (not attention's products);
minimal_with_context: attention's too. full: the layer's input alone. The others: see KEPT. The ladder and its names are
MaxText's (published: minimal on v5p, full on v5e, inputs_offloaded on v6e)."""

KEPT: dict[str, tuple[str, ...]] = {
    "save_dot_with_context_except_mlp": ("qkv", "context", "out_proj"),
    "save_dot_except_mlp": ("qkv", "out_proj"),
    "save_qkv_proj": ("qkv",),
    "save_out_proj": ("out_proj",),
}
"""Policies that keep named results on the device."""

OFFLOADED: dict[str, tuple[str, ...]] = {
    "minimal_offloaded": ("qkv", "out_proj", "mlp_in"),
    "qkv_offloaded": ("qkv",),
    "inputs_offloaded": ("layer_input", "qkv", "out_proj"),
}
"""Policies that move named results to the host's memory and back."""

UNROLLED_LAYERS = 4
"""Stacks of at most so many layers, nano's, are unrolled in the compiled program; their parameters stay stacked.
Unrolled layers of full size run no faster and compile for long."""

Initializer = jax.nn.initializers.Initializer


def remat_policy(remat: str) -> Any:
    """The jax.checkpoint policy of a name. None keeps nothing ('full'); do not call it for 'none'.

    Raises ValueError that lists the names where there is no such policy.
    """
    policies = jax.checkpoint_policies
    if remat == "full":
        return None
    if remat == "minimal":
        return policies.save_only_these_names(MATMUL)
    if remat == "minimal_with_context":
        return policies.save_only_these_names(MATMUL, "context")
    if remat in KEPT:
        return policies.save_only_these_names(*KEPT[remat])
    if remat in OFFLOADED:
        return policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=list(OFFLOADED[remat]),
            offload_src="device",
            offload_dst="pinned_host",
        )
    raise ValueError(f"remat: got {remat!r}, wanted one of {', '.join(get_args(Remat))}; choose one of these.")


def scan_layers(block: type[nn.Module], layers: int, remat: Remat, *, scanned_inputs: int = 0, broadcast_inputs: int):
    """`block` repeated `layers` times, its parameters stacked on a leading axis named "layers".

    block's call is (carry, *scanned, *broadcast) -> (carry, output); scanned inputs and outputs are stacked by layer.
    """
    if remat != "none":
        block = nn.remat(block, policy=remat_policy(remat), prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0, "intermediates": 0, "attention": 0},
        split_rngs={"params": True},
        in_axes=(0,) * scanned_inputs + (nn.broadcast,) * broadcast_inputs,
        length=layers,
        # A loop of few small layers costs more in copies than it saves in compilation: 20 to 30 % of a nano step.
        unroll=layers if layers <= UNROLLED_LAYERS else 1,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


def torch_linear_init(in_axis: int | tuple[int, ...] = 0, out_axis: int | tuple[int, ...] = -1) -> Initializer:
    """torch.nn.Linear's default weight: uniform within 1 / sqrt(inputs)."""
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=in_axis, out_axis=out_axis)


def symmetric_uniform(bound: float) -> Initializer:
    """Uniform in [-bound, bound)."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """A linear map from the last `len(inputs)` axes to `len(outputs)` new ones.

    axes: logical names, inputs then outputs. bias: its initializer, or None for no bias.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    kernel_init: Initializer
    bias_init: Initializer | None = None
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "..."], norm: Affine | None = None) -> Float[Array, "..."]:
        """norm: of the layer norm before, where x is only standardized (`norm_matmul`)."""
        kernel = self.param(
            "kernel", nn.with_logical_partitioning(self.kernel_init, self.axes), (*self.inputs, *self.outputs)
        )
        count = len(self.inputs)
        if norm is None:
            y = matmul(x.astype(self.dtype), kernel.astype(self.dtype), count)
        else:
            y = norm_matmul(x, norm, kernel.astype(self.dtype))
        if self.bias_init is None:
            return y
        # A width that no table cuts in activations ("embed", "vision_embed") stays whole in the small bias.
        axes = tuple("norm" if axis in ("embed", "vision_embed") else axis for axis in self.axes[count:])
        bias = self.param("bias", nn.with_logical_partitioning(self.bias_init, axes), self.outputs)
        return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


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


def shard_batch(x: Array) -> Array:
    """x, kept cut along its first axis as the batch is. Without axis rules (`nn.logical_axis_rules`) or mesh: x.

    Without it, the compiler may follow a parameter's cut instead and gather activations where it should gather weights.
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
