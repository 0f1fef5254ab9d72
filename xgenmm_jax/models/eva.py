"""EVA-CLIP-E's vision transformer, whose features the released BLIP3-o draws.

Source: docs/reference/blip3o.md#target-features (BLIP3-o's `EVAVisionTransformer`).
"""

from dataclasses import dataclass
from typing import ClassVar

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from xgenmm_jax.models.layers import Channels, Dtype, LayerNorm, MultiHeadAttention, shard_batch
from xgenmm_jax.models.remat import Remat
from xgenmm_jax.models.vit import CLIP_MEAN, CLIP_STD, FeedForward, ViT
from xgenmm_jax.ops.attention_choice import Implementation


@dataclass(frozen=True)
class EVAConfig:
    """Defaults are EVA-CLIP-E/14+ at 448 px: 1,024 features of an image.

    pixel_mean, pixel_std: of pixels in 0..1, what `normalize_pixels` takes before the tower.

    Raises ValueError where patches do not cover the image, or heads do not divide the width.
    """

    image_size_px: int = 448
    patch_px: int = 14
    width: int = 1792
    hidden: int = 15360
    layers: int = 64
    heads: int = 16
    epsilon: float = 1e-6
    remat: Remat = "none"
    attention: Implementation = "auto"
    pixel_mean: Channels = CLIP_MEAN
    pixel_std: Channels = CLIP_STD
    class_token: ClassVar[bool] = True
    bare: ClassVar[bool] = True

    def __post_init__(self):
        if self.image_size_px % self.patch_px or self.width % self.heads:
            raise ValueError(
                f"eva: got {self.image_size_px} px for patches of {self.patch_px} and width {self.width} for "
                f"{self.heads} heads; wanted whole patches and whole heads."
            )

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size_px // self.patch_px

    @property
    def patches(self) -> int:
        return self.grid**2


class EVABlock(nn.Module):
    """Post-norm inside the residual: x += norm1(attention(x)); x += norm2(mlp(x))."""

    config: EVAConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "n R E"]) -> tuple[Float[Array, "n R E"], None]:
        config = self.config
        x = checkpoint_name(x, "layer_input")
        attention = MultiHeadAttention(
            config.width, config.heads, "vision_embed", self.dtype, config.attention, name="attention"
        )
        x = x + LayerNorm(config.width, config.epsilon, self.dtype, name="norm1")(attention(x))
        mlp = FeedForward(config.width, config.hidden, self.dtype, "gelu", name="mlp")
        x = x + LayerNorm(config.width, config.epsilon, self.dtype, name="norm2")(mlp(x))
        return shard_batch(x), None


class EVA(ViT):
    """The tower: a bare ViT with layers of its own, whose features are those of the patches alone."""

    config: EVAConfig

    block: ClassVar[type[nn.Module]] = EVABlock

    def __call__(self, pixels: Float[Array, "n h w 3"]) -> Float[Array, "n P E"]:
        """The last layer's states of the patches in raster order. pixels: normalised, image_size_px square.

        Raises ValueError for pixels of another size.
        """
        return self.before_norm(pixels)
