"""Features to pixels, and a small autoencoder: transformers over patches, without noise.

Both are of this project; what BLIP3-o releases for it (SDXL's, SANA's) are weights of others.
"""

from dataclasses import dataclass

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from xgenmm_jax.models.layers import Dtype, LayerNorm, Linear, torch_linear, torch_linear_init
from xgenmm_jax.models.remat import Remat, scan_layers
from xgenmm_jax.models.vit import EPSILON, EncoderBlock, ViTConfig


@dataclass(frozen=True)
class PixelDecoderConfig:
    """From grid x grid cells of features to an image of image_size_px a side.

    channels: of a cell. patch_px: side of the patches that the layers compute with, several of which are a cell.

    Raises ValueError where patches do not tile the image, or cells the patches.
    """

    channels: int
    grid: int
    image_size_px: int
    patch_px: int
    width: int
    hidden: int
    layers: int
    heads: int
    remat: Remat = "none"

    def __post_init__(self):
        patches = self.image_size_px // self.patch_px
        if patches * self.patch_px != self.image_size_px or patches % self.grid:
            raise ValueError(
                f"pixel decoder: got {self.image_size_px} px in patches of {self.patch_px} for {self.grid} cells a "
                "side; choose patches that tile the image and cells that tile the patches."
            )
        if self.width % self.heads:
            raise ValueError(f"pixel decoder: got width {self.width} for {self.heads} heads; choose a divisor.")

    @property
    def patches(self) -> int:
        """Along a side."""
        return self.image_size_px // self.patch_px


def layers_of(config: "PixelDecoderConfig | AutoencoderConfig") -> ViTConfig:
    """The tower whose layers are those of a stack."""
    return ViTConfig(
        image_size_px=config.image_size_px, patch_px=config.patch_px, width=config.width, hidden=config.hidden,
        layers=config.layers, heads=config.heads, remat=config.remat,
    )  # fmt: skip


class PixelDecoder(nn.Module):
    """Each cell becomes patches with positions, which attend to each other and become pixels."""

    config: PixelDecoderConfig
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, features: Float[Array, "n g g C"]) -> Float32[Array, "n h w 3"]:
        """Pixels, -1..1 for 0..255, and beyond where the map overshoots. features: normalised."""
        config = self.config
        count, cells, side = features.shape[0], config.grid, config.patches
        split = side // cells
        x = Linear(
            outputs=(split, split, config.width),
            axes=("vision_embed", None, None, None),
            kernel_init=torch_linear_init(0, (1, 2, 3)),
            bias_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="cells",
        )(features)
        x = x.swapaxes(2, 3).reshape(count, side * side, config.width)
        positions = self.param(
            "positions",
            nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "vision_embed")),
            (side * side, config.width),
        )
        x = x + positions.astype(self.dtype)[None]
        x, _ = scan_layers(EncoderBlock, config.layers, config.remat, broadcast_inputs=0)(
            layers_of(config), self.dtype, name="layers"
        )(x)
        x = LayerNorm(config.width, EPSILON, self.dtype, name="norm")(x)
        patch = config.patch_px
        pixels = Linear(
            outputs=(patch, patch, 3),
            axes=("vision_embed", None, None, None),
            kernel_init=torch_linear_init(0, (1, 2, 3)),
            bias_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="pixels",
        )(x)
        pixels = pixels.astype(jnp.float32).reshape(count, side, side, patch, patch, 3).swapaxes(2, 3)
        return pixels.reshape(count, side * patch, side * patch, 3)


@dataclass(frozen=True)
class AutoencoderConfig:
    """An image of image_size_px a side as latents, one cell a patch. channels: of a latent."""

    image_size_px: int = 384
    patch_px: int = 16
    channels: int = 16
    width: int = 768
    hidden: int = 3072
    layers: int = 12
    heads: int = 12
    remat: Remat = "none"

    def __post_init__(self):
        _ = self.decoder

    @property
    def side(self) -> int:
        """Latents along a side."""
        return self.image_size_px // self.patch_px

    @property
    def decoder(self) -> PixelDecoderConfig:
        return PixelDecoderConfig(
            self.channels, self.side, self.image_size_px, self.patch_px, self.width, self.hidden, self.layers,
            self.heads, self.remat,
        )  # fmt: skip


class Autoencoder(nn.Module):
    """Patches through a transformer to few channels, and back."""

    config: AutoencoderConfig
    dtype: Dtype = "float32"

    def setup(self):
        config = self.config
        self.patches = Linear(
            outputs=(config.width,),
            axes=(None, None, None, "vision_embed"),
            kernel_init=torch_linear_init((0, 1, 2), 3),
            bias_init=nn.initializers.zeros,
            dtype=self.dtype,
        )
        self.positions = self.param(
            "positions",
            nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "vision_embed")),
            (config.side**2, config.width),
        )
        self.layers = scan_layers(EncoderBlock, config.layers, config.remat, broadcast_inputs=0)(
            layers_of(config), self.dtype
        )
        self.norm = LayerNorm(config.width, EPSILON, self.dtype)
        self.latents = torch_linear(config.width, config.channels, ("vision_embed", None), "float32", "latents")
        self.decoder = PixelDecoder(config.decoder, self.dtype)

    def encode(self, pixels: Float[Array, "n h w 3"]) -> Float32[Array, "n g g C"]:
        """Latents as they come. pixels: -1..1."""
        config, side, patch = self.config, self.config.side, self.config.patch_px
        count = pixels.shape[0]
        x = pixels.reshape(count, side, patch, side, patch, 3).swapaxes(2, 3)
        x = self.patches(x.reshape(count, side * side, patch, patch, 3)) + self.positions.astype(self.dtype)[None]
        x, _ = self.layers(x)
        return self.latents(self.norm(x).astype(jnp.float32)).reshape(count, side, side, config.channels)

    def decode(self, latents: Float[Array, "n g g C"]) -> Float32[Array, "n h w 3"]:
        """Pixels of latents, -1..1 and beyond."""
        return self.decoder(latents)

    def __call__(self, pixels: Float[Array, "n h w 3"]) -> Float32[Array, "n h w 3"]:
        """There and back."""
        return self.decode(self.encode(pixels))
