"""SigLIP's vision transformer: patch features after the last norm, and its attention-pooling head; CLIP's form too.

Source: spec of transformers' SiglipVisionModel; big_vision's `vit.py` computes the same (so400m/14 at 384 px). CLIP's
form is open_clip's VisionTransformer, which DFN's ViT-H/14 has. Without norms at its ends the tower is EVA-CLIP-g,
which BLIP-2 reads (docs/reference/blip2.md#image-encoder).
"""

from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Float

from xgenmm_jax.models.layers import Dtype, LayerNorm, Linear, MultiHeadAttention, shard_batch
from xgenmm_jax.models.remat import Remat, scan_layers
from xgenmm_jax.ops.attention_choice import Implementation

EPSILON = 1e-6
KERNEL_INIT = nn.initializers.xavier_uniform()

Activation = Literal["gelu_tanh", "gelu", "quick_gelu"]
"""gelu_tanh: SigLIP's. gelu: the exact one, of open_clip's own towers. quick_gelu: x * sigmoid(1.702 x), OpenAI's and
DFN's. Their parameters look the same."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of pixels in 0..1, for towers in CLIP's form."""


@dataclass(frozen=True)
class ViTConfig:
    """Defaults are SigLIP so400m/14 at 384 px.

    class_token: CLIP's form. A class token with a position of its own goes first, a norm stands before the layers, the
    patch embedding has no bias, and the pooled vector is the class token's last state, mapped to `projection` widths.
    bare: with a class token, EVA-CLIP-g's form. No norm stands before the layers and none behind, the patch embedding
    has a bias, the class token's state is the first of the features, and there is no projection.
    pixel_mean, pixel_std: of pixels in 0..1, what `normalize_pixels` takes before the tower.
    """

    image_size_px: int = 384
    patch_px: int = 14
    width: int = 1152
    hidden: int = 4304
    layers: int = 27
    heads: int = 16
    remat: Remat = "none"
    attention: Implementation = "auto"
    activation: Activation = "gelu_tanh"
    epsilon: float = EPSILON
    class_token: bool = False
    projection: int = 0
    bare: bool = False
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        if self.bare and (self.projection or not self.class_token):
            raise ValueError(
                f"vision: got a bare tower with class_token {self.class_token} and projection {self.projection}; it "
                "has a class token and no projection."
            )
        if not self.bare and self.class_token != (self.projection > 0):
            raise ValueError(
                f"vision: got class_token {self.class_token} and projection {self.projection}; a class token needs the "
                "width of its projection, and a tower without one has none."
            )

    @property
    def grid(self) -> int:
        """Patches along a side. Pixels beyond the last whole patch are ignored: 384 px give 27 patches of 14."""
        return self.image_size_px // self.patch_px

    @property
    def patches(self) -> int:
        return self.grid**2

    @property
    def features(self) -> int:
        """Vectors that the tower gives of an image: of its patches, and of a bare tower's class token."""
        return self.patches + self.bare


def activate(x: Float[Array, "*n"], activation: Activation) -> Float[Array, "*n"]:
    if activation == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=activation == "gelu_tanh")


class FeedForward(nn.Module):
    """Linear, GELU, Linear, with biases."""

    width: int
    hidden: int
    dtype: Dtype
    activation: Activation = "gelu_tanh"

    @nn.compact
    def __call__(self, x: Float[Array, "... E"]) -> Float[Array, "... E"]:
        bias_init = nn.initializers.normal(1e-6)
        up = Linear((self.hidden,), ("vision_embed", "mlp"), KERNEL_INIT, bias_init, self.dtype, name="fc1")(x)
        return Linear((self.width,), ("mlp", "vision_embed"), KERNEL_INIT, bias_init, self.dtype, name="fc2")(
            activate(checkpoint_name(up, "mlp_in"), self.activation)
        )


class EncoderBlock(nn.Module):
    """Pre-norm: x += attention(norm1(x)); x += mlp(norm2(x))."""

    config: ViTConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "n P E"]) -> tuple[Float[Array, "n P E"], None]:
        config = self.config
        x = checkpoint_name(x, "layer_input")
        x = x + MultiHeadAttention(
            config.width, config.heads, "vision_embed", self.dtype, config.attention, name="attention"
        )(LayerNorm(config.width, config.epsilon, self.dtype, name="norm1")(x))
        x = x + FeedForward(config.width, config.hidden, self.dtype, config.activation, name="mlp")(
            LayerNorm(config.width, config.epsilon, self.dtype, name="norm2")(x)
        )
        return shard_batch(x), None


class PoolingHead(nn.Module):
    """SigLIP's head: a learned probe attends to the patches; then x + mlp(norm(x))."""

    config: ViTConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, features: Float[Array, "n P E"]) -> Float[Array, "n E"]:
        width = self.config.width
        probe = self.param(
            "probe", nn.with_logical_partitioning(nn.initializers.xavier_uniform(), (None, "vision_embed")), (1, width)
        )
        query = jnp.broadcast_to(probe.astype(self.dtype)[None], (features.shape[0], 1, width))
        attention = MultiHeadAttention(width, self.config.heads, "vision_embed", self.dtype)
        # Its parameters stand beside the probe, without a level of their own.
        nn.share_scope(self, attention)
        x = attention(query, features)
        x = x + FeedForward(width, self.config.hidden, self.dtype, self.config.activation, name="mlp")(
            LayerNorm(width, self.config.epsilon, self.dtype, name="norm")(x)
        )
        return x[:, 0]


class ViT(nn.Module):
    """The tower. Initialise it with `features_and_pooled`, which makes the parameters of tower and head.

    Subclasses may have other layers (`eva.py`).
    """

    config: ViTConfig
    dtype: Dtype = "float32"

    block: ClassVar[type[nn.Module]] = EncoderBlock

    def setup(self):
        config = self.config
        # fan-in scaling over all pixels of a patch, as a convolution would have it
        self.patch_embedding = Linear(
            outputs=(config.width,),
            axes=(None, None, None, "vision_embed"),
            kernel_init=nn.initializers.lecun_normal(in_axis=(0, 1, 2)),
            bias_init=None if self._is_clip else nn.initializers.zeros,
            dtype=self.dtype,
        )
        self.position_embedding = self.param(
            "position_embedding",
            nn.with_logical_partitioning(nn.initializers.normal(config.width**-0.5), (None, "vision_embed")),
            (config.patches + config.class_token, config.width),
        )
        self.layers = scan_layers(self.block, config.layers, config.remat, broadcast_inputs=0)(config, self.dtype)
        if config.class_token:
            self.class_embedding = self.param(
                "class_embedding",
                nn.with_logical_partitioning(nn.initializers.normal(config.width**-0.5), ("vision_embed",)),
                (config.width,),
            )
        if config.bare:
            return
        self.post_norm = LayerNorm(config.width, config.epsilon, self.dtype)
        if not config.class_token:
            self.head = PoolingHead(config, self.dtype)
            return
        self.pre_norm = LayerNorm(config.width, config.epsilon, self.dtype)
        self.projection = Linear(
            outputs=(config.projection,),
            axes=("vision_embed", None),
            kernel_init=nn.initializers.normal(config.width**-0.5),
            dtype=self.dtype,
        )

    @property
    def _is_clip(self) -> bool:
        return self.config.class_token and not self.config.bare

    def __call__(self, pixels: Float[Array, "n h w 3"]) -> Float[Array, "n P E"]:
        """Features of the patches in raster order, after the last norm; a bare tower's states, the class token's first.

        pixels: normalised, image_size_px square.
        """
        x = self._encode(pixels)
        return x[:, 1:] if self._is_clip else x

    def _encode(self, pixels: Float[Array, "n h w 3"]) -> Float[Array, "n R E"]:
        """States after the last norm: the class token's first, where there is one, then those of the patches."""
        states = self._states(pixels)
        return states if self.config.bare else self.post_norm(states)

    def before_norm(self, pixels: Float[Array, "n h w 3"]) -> Float[Array, "n P E"]:
        """The last layer's states of the patches as they come, without the norm behind them."""
        x = self._states(pixels)
        return x[:, 1:] if self.config.class_token else x

    def _states(self, pixels: Float[Array, "n h w 3"]) -> Float[Array, "n R E"]:
        config = self.config
        if pixels.shape[1:3] != (config.image_size_px, config.image_size_px):
            raise ValueError(
                f"pixels: got {pixels.shape[1]} x {pixels.shape[2]} px, the tower wants {config.image_size_px} square; "
                "resize the image or change vision.image_size_px."
            )
        grid, patch = config.grid, config.patch_px
        count = pixels.shape[0]
        whole = pixels[:, : grid * patch, : grid * patch]
        patches = whole.reshape(count, grid, patch, grid, patch, 3).swapaxes(2, 3)
        x = self.patch_embedding(patches.reshape(count, grid * grid, patch, patch, 3))
        if config.class_token:
            first = jnp.broadcast_to(self.class_embedding.astype(self.dtype)[None, None], (count, 1, config.width))
            x = jnp.concatenate([first, x], axis=1)
        x = x + self.position_embedding.astype(self.dtype)[None]
        if self._is_clip:
            x = self.pre_norm(x)
        x, _ = self.layers(x)
        return x

    def pool(self, features: Float[Array, "n P E"]) -> Float[Array, "n E"]:
        """One vector of an image, not normalised. Raises ValueError where a class token makes it, not the patches."""
        if self.config.class_token:
            raise ValueError("pool: this tower pools through its class token; use features_and_pooled.")
        return self.head(features)

    def features_and_pooled(self, pixels: Float[Array, "n h w 3"]) -> tuple[Float[Array, "n P E"], Float[Array, "n F"]]:
        """F is the tower's width, or `projection` with a class token. A bare tower pools to the class token's state."""
        if self.config.class_token:
            x = self._encode(pixels)
            return (x, x[:, 0]) if self.config.bare else (x[:, 1:], self.projection(x[:, 0]))
        features = self(pixels)
        return features, self.pool(features)


def penultimate(
    config: ViTConfig, dtype: Dtype, params: Mapping[str, Any], pixels: Float[Array, "n h w 3"]
) -> Float[Array, "n P E"]:
    """The input of the last layer, of the patches: `hidden_states[-2]` of transformers. params: the whole tower's."""
    shorter = {**params, "layers": jax.tree.map(lambda leaf: leaf[:-1], params["layers"])}
    tower = ViT(dataclasses.replace(config, layers=config.layers - 1), dtype)
    return tower.apply({"params": shorter}, pixels, method="before_norm")
