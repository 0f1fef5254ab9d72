"""BLIP-3: crops through the tower, groups of features through the connector, vision tokens laid into the text.

The parameter tree {vision, connector, decoder} is the checkpoint's layout.
"""

from dataclasses import dataclass

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt8

from xgenmm_jax.batch import Batch
from xgenmm_jax.models import dropout
from xgenmm_jax.models.layers import Dtype, normalize_pixels, shard_batch
from xgenmm_jax.models.mlp_connector import MLPConnector, MLPConnectorConfig, pooled_side
from xgenmm_jax.models.phi3 import Phi3, Phi3Config
from xgenmm_jax.models.qformer import QFormer, QFormerConfig
from xgenmm_jax.models.resampler import Resampler, ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling, group_crops, group_images, group_strips, image_patches
from xgenmm_jax.models.vit import ViT, ViTConfig
from xgenmm_jax.ops.partitioning import on_one_gpu
from xgenmm_jax.ops.valid_only import on_valid_crops


@dataclass(frozen=True)
class VLMConfig:
    """The whole model. dtype is the compute dtype of all parts; parameters are float32.

    max_image_crops: most crops of one image, global view included; only FIXED_SAMPLING needs it, see `check_crops`.

    Raises ValueError where parts do not fit each other.
    """

    vision: ViTConfig
    connector: ResamplerConfig | MLPConnectorConfig | QFormerConfig
    decoder: Phi3Config
    token_sampling: TokenSampling = TokenSampling.CROPS
    max_image_crops: int = 5
    dtype: Dtype = "float32"

    def __post_init__(self):
        if self.connector.width != self.vision.width:
            raise ValueError(
                f"connector.width: got {self.connector.width}, the tower gives {self.vision.width}; make them equal."
            )
        if self.connector.out_width != self.decoder.width:
            raise ValueError(
                f"connector.out_width: got {self.connector.out_width}, the decoder takes {self.decoder.width}; "
                "make them equal."
            )
        if not isinstance(self.connector, ResamplerConfig) and self.token_sampling in (
            TokenSampling.STRIPS,
            TokenSampling.FIXED_SAMPLING,
        ):
            which = "the MLP connector, which pools square crops"
            if isinstance(self.connector, QFormerConfig):
                which = "a Q-Former, which reads one crop"
            raise ValueError(
                f"token_sampling: got {self.token_sampling.value} with {which}; choose crops or fixed_resolution, or a "
                "resampler."
            )
        if self.vision.bare and not isinstance(self.connector, QFormerConfig):
            raise ValueError(
                f"connector: got a {type(self.connector).__name__} for a bare tower, whose features hold the class "
                "token's; only a Q-Former reads it."
            )
        heads, kv_heads = self.decoder.heads, self.decoder.kv_heads
        if heads % kv_heads or (self.decoder.head_dim is None and self.decoder.width % heads):
            raise ValueError(
                f"decoder: got width {self.decoder.width}, {heads} heads and {kv_heads} key-value heads; heads must "
                "divide the width, or decoder.head_dim be given, and key-value heads must divide heads."
            )
        if self.vision.width % self.vision.heads:
            raise ValueError(
                f"vision: got width {self.vision.width} and {self.vision.heads} heads; heads must divide the width."
            )

    def check_crops(self, crops: int, whose: str) -> None:
        """Raises ValueError where an image has more crops than fixed sampling reads: it would lose the others unsaid.

        whose: the sentence's subject, "an image of 800 x 600 px takes".
        """
        if self.token_sampling is TokenSampling.FIXED_SAMPLING and crops > self.max_image_crops:
            raise ValueError(
                f"model.max_image_crops: got {self.max_image_crops}, and {whose} {crops} crops, global view included: "
                f"fixed sampling would lose {crops - self.max_image_crops}; raise it to {crops} or leave large grids "
                "out of anyres.grids."
            )

    @property
    def connector_drops(self) -> bool:
        """Whether the connector has dropout in training."""
        return isinstance(self.connector, QFormerConfig) and self.connector.dropout > 0

    @property
    def tokens_per_group(self) -> int:
        """Q: vision tokens of one crop or strip, or of one image with FIXED_SAMPLING."""
        if isinstance(self.connector, MLPConnectorConfig):
            return pooled_side(self.vision.grid, self.connector.pool) ** 2
        return self.connector.queries


class VLM(nn.Module):
    """`hidden` and `logits` for training; generation runs the parts, `encode_images` and `decoder`, by themselves."""

    config: VLMConfig
    trains_vision: bool = False
    """False stops gradients at the tower's features, so that its backward pass is never computed."""

    def setup(self):
        config = self.config
        self.vision = ViT(config.vision, config.dtype)
        if isinstance(config.connector, MLPConnectorConfig):
            self.connector = MLPConnector(config.connector, config.dtype)
        elif isinstance(config.connector, QFormerConfig):
            # Float32 whatever `dtype` is: docs/reference/blip2.md#known-problems. So are operands and results; in its
            # products a TPU rounds operands to bfloat16 unless jax_default_matmul_precision says otherwise.
            self.connector = QFormer(config.connector, "float32")
        else:
            self.connector = Resampler(config.connector, config.dtype)
        self.decoder = Phi3(config.decoder, config.dtype)

    def __call__(self, batch: Batch) -> Float[Array, "B T V"]:
        """Float32 logits; those at t predict the token at t + 1. Initialise with this: it makes every parameter."""
        if self.is_initializing():
            pixels = batch.pixels.reshape(-1, *batch.pixels.shape[2:])
            self.vision.features_and_pooled(self.normalize(pixels))
        return self.logits(self.hidden(batch))

    def normalize(self, pixels: UInt8[Array, "*n h w 3"] | Float32[Array, "*n h w 3"]) -> Float[Array, "*n h w 3"]:
        """Bytes as the tower takes them; floats are so already."""
        vision = self.config.vision
        if pixels.dtype != jnp.uint8:
            return pixels.astype(self.config.dtype)
        return normalize_pixels(pixels, self.config.dtype, vision.pixel_mean, vision.pixel_std)

    def features(self, batch: Batch) -> Float[Array, "B C P E"]:
        """The tower's features of every crop. Ignore those of padding crops."""
        rows, crops = batch.pixels.shape[:2]
        pixels = shard_batch(batch.pixels.reshape(rows * crops, *batch.pixels.shape[2:]))
        watched = any(map(self.is_mutable_collection, ("params", "intermediates", "attention")))
        if self.trains_vision or watched or not on_one_gpu():
            features = shard_batch(self.vision(self.normalize(pixels)))
        else:
            variables = self.vision.variables
            tower = ViT(self.config.vision, self.config.dtype, parent=None)
            features = on_valid_crops(
                lambda pixels: tower.apply(variables, self.normalize(pixels)), pixels, batch.crop_image.reshape(-1) >= 0
            )
        if not self.trains_vision:
            features = jax.lax.stop_gradient(features)
        return features.reshape(rows, crops, *features.shape[1:])

    def encode_images(self, batch: Batch) -> Float[Array, "B M D"]:
        """Vision tokens of each row: M = C * Q, or I * Q with FIXED_SAMPLING. Ignore those of padding crops."""
        return self.connect(self.features(batch), batch)

    def connect(self, features: Float[Array, "B C P E"], batch: Batch) -> Float[Array, "B M D"]:
        """Vision tokens from features, so that features of a frozen tower can be computed once and stored."""
        config = self.config
        rows = features.shape[0]
        if isinstance(config.connector, MLPConnectorConfig):
            tokens = self.connector(features.reshape(-1, *features.shape[2:]))
            return tokens.reshape(rows, -1, tokens.shape[-1])
        grid = config.vision.grid
        if isinstance(config.connector, QFormerConfig):
            # A bare tower's class token stands before the patches.
            first = ((0, 0), (0, 0), (int(config.vision.bare), 0))
            mask = jnp.pad(image_patches(batch, grid), first, constant_values=True)
            groups = shard_batch(features.reshape(-1, *features.shape[2:]))
            is_on = config.connector_drops and self.has_rng(dropout.STREAM)
            crop_ids = dropout.checksums(batch.pixels.reshape(len(groups), -1)) if is_on else None
            tokens = self.connector(groups, mask.reshape(len(groups), -1), crop_ids).astype(config.dtype)
            return tokens.reshape(rows, -1, tokens.shape[-1])
        if config.token_sampling is TokenSampling.STRIPS:
            groups, mask = group_strips(features, batch, grid)
        elif config.token_sampling is TokenSampling.FIXED_SAMPLING:
            groups, mask = group_images(features, batch, grid, config.max_image_crops)
        else:
            groups, mask = group_crops(features, batch, grid)
        count = groups.shape[0] * groups.shape[1]
        groups, mask = shard_batch(groups.reshape(count, *groups.shape[2:])), mask.reshape(count, -1)
        if config.connector.instruction_tokens:
            tokens = self.connector(groups, mask, *self._instruction(batch))
        else:
            tokens = self.connector(groups, mask)
        return tokens.reshape(rows, -1, tokens.shape[-1])

    def _instruction(self, batch: Batch) -> tuple[Float[Array, "n U D"], Bool[Array, "n U"]]:
        """Embeddings of the prompt of each group's segment: its first U text tokens that are not targets."""
        segments = batch.crop_segment
        if self.config.token_sampling is TokenSampling.FIXED_SAMPLING:
            # An image's segment is that of its crops; 0 where the image does not exist.
            image = jnp.arange(batch.image_grid.shape[1], dtype=jnp.int32)[None, :, None]
            segments = jnp.max(jnp.where(batch.crop_image[:, None] == image, segments[:, None], 0), axis=-1)
        index, mask = prompt_tokens(batch, segments, self.config.connector.instruction_tokens)
        rows, groups, length = index.shape
        text = self.decoder.embed(batch.token_ids)
        picked = jnp.take_along_axis(text, index.reshape(rows, groups * length, 1), axis=1)
        return picked.reshape(rows * groups, length, -1), mask.reshape(rows * groups, length)

    def embed(self, batch: Batch) -> Float[Array, "B T D"]:
        """The decoder's input: text embeddings with vision tokens at their positions. A batch without crops is text."""
        text = self.decoder.embed(batch.token_ids)
        if batch.pixels.shape[1] == 0:
            return text
        return splice(text, self.encode_images(batch), batch.slot)

    def hidden(self, batch: Batch) -> Float[Array, "B T D"]:
        """The decoder's states after its last norm, for `logits` at selected positions."""
        return self.decoder.hidden(self.embed(batch), batch.segment_ids, batch.positions)

    def logits(self, hidden: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Float32 logits of states."""
        return self.decoder.logits(hidden)


def splice(
    text: Float[Array, "B T D"], image: Float[Array, "#B M D"], slot: Int32[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Text embeddings with vision tokens laid into their slots.

    image: of each row, or one table of all rows. slot: index into M, or -1 for text; [-1, 0, 1, -1] takes two.
    """
    image_BTD = jnp.take_along_axis(image, jnp.maximum(slot, 0)[..., None], axis=1)
    return jnp.where((slot >= 0)[..., None], image_BTD, text)


def prompt_tokens(
    batch: Batch, segments: Int32[Array, "B G"], length: int
) -> tuple[Int32[Array, "B G U"], Bool[Array, "B G U"]]:
    """Positions of the first `length` prompt tokens of each segment, and which of them exist.

    Prompt is what is text and no target: an answer never reaches the image that it is asked about. In a conversation
    of several turns, later questions do.
    """
    is_prompt = (
        (batch.segment_ids[:, None] == segments[..., None])
        & (segments[..., None] > 0)
        & ~batch.loss_mask[:, None]
        & (batch.slot[:, None] < 0)
    )
    missing = length - is_prompt.shape[-1]
    if missing > 0:
        is_prompt = jnp.pad(is_prompt, ((0, 0), (0, 0), (0, missing)))
    index = jnp.argsort(~is_prompt, axis=-1, stable=True)[..., :length].astype(jnp.int32)
    mask = jnp.take_along_axis(is_prompt, index, axis=-1)
    return jnp.where(mask, index, 0), mask


def smallest_batch(config: VLMConfig) -> Batch:
    """A row of padding, one crop, one position per vision token and one more: enough to initialise the model with."""
    batch = Batch.empty(1, config.tokens_per_group + 1, crops=1, images=1, size_px=config.vision.image_size_px)
    return jax.tree.map(jnp.asarray, batch)


def initialize(config: VLMConfig, key: Array) -> dict:
    """Parameters from a key, boxed with their logical axis names: `nn.unbox` gives arrays, `jax.eval_shape` works."""
    return VLM(config).init(key, smallest_batch(config))["params"]
