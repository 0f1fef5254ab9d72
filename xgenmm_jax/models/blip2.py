"""BLIP-2's first stage: a tower, a Q-Former with text rows, and the heads of its three losses.

The parameter tree {vision, connector, text, heads} is the checkpoint's layout; the first two are a VLM's parts of
these names, the others serve the first stage and retrieval alone.

Source: docs/reference/blip2.md#heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, UInt8

from xgenmm_jax.models.dropout import Draws
from xgenmm_jax.models.layers import Dtype, LayerNorm, Linear, normalize_pixels, shard_batch, torch_linear
from xgenmm_jax.models.qformer import INIT, QFormer, QFormerConfig, QFormerText, join_text, split_text
from xgenmm_jax.models.vit import ViT, ViTConfig

HEADS = ("image_projection", "text_projection", "matching", "temperature", "word_dense", "word_norm", "word_bias")
"""The last four are of the language head and the losses: not in every file."""


@dataclass(frozen=True)
class Blip2Config:
    """Defaults of the text are BERT's ids and `[DEC]`, the last one, which opens a caption that is written.

    projection: width of the vectors that are compared. temperature: what it begins with. language_head: False: of a
    file that lacks it and the temperature, as transformers' do; such a model retrieves, and cannot be trained on.

    Raises ValueError where the parts do not fit each other.
    """

    vision: ViTConfig
    connector: QFormerConfig
    text: QFormerText = QFormerText()  # noqa: RUF009 - frozen
    projection: int = 256
    temperature: float = 0.07
    language_head: bool = True
    dtype: Dtype = "float32"

    def __post_init__(self):
        if self.connector.width != self.vision.width:
            raise ValueError(
                f"connector.width: got {self.connector.width}, the tower gives {self.vision.width}; make them equal."
            )
        if self.connector.out_width:
            raise ValueError(
                f"connector.out_width: got {self.connector.out_width}, and the first stage has no language model; make "
                "it 0."
            )

    @property
    def decoding_id(self) -> int:
        """`[DEC]`."""
        return self.text.vocab_size - 1


class Seen(NamedTuple):
    """What the queries make of images."""

    features: Float[Array, "n S E"]
    """Normalized."""
    vectors: Float[Array, "n Q F"]
    """Length 1, one of each query."""
    cache: Any
    """Keys and values of the queries."""


class Blip2(nn.Module):
    """Apply it to `variables(params)`."""

    config: Blip2Config

    def setup(self):
        config = self.config
        inner, shared = config.connector.inner, ("vision_embed", None)
        self.vision = ViT(config.vision, config.dtype)
        # Float32 whatever `dtype` is, but for what a TPU makes of products: see `VLM.setup`.
        self.connector = QFormer(config.connector, "float32", config.text)
        self.image_projection = torch_linear(inner, config.projection, shared, config.dtype)
        self.text_projection = torch_linear(inner, config.projection, shared, config.dtype)
        self.matching = torch_linear(inner, 2, shared, config.dtype)
        if not config.language_head:
            return
        self.temperature = self.param("temperature", nn.initializers.constant(config.temperature), ())
        # BERT's language head: its decoder is the table of words.
        self.word_dense = Linear((inner,), shared, INIT, nn.initializers.zeros, config.dtype)
        self.word_norm = LayerNorm(inner, config.connector.epsilon)
        bias = nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",))
        self.word_bias = self.param("word_bias", bias, (config.text.vocab_size,))

    def __call__(
        self, pixels: UInt8[Array, "n h w 3"], token_ids: Int32[Array, "n T"], valid: Bool[Array, "n T"]
    ) -> tuple[Float[Array, "n 2"], Float[Array, "n T V"] | None]:
        """Logits of `match` and `caption_logits`, None without a language head. It runs every part: initialise so."""
        if self.is_initializing():
            self.vision.features_and_pooled(self.normalize(pixels))
        seen = self.see(self.encode(pixels))
        self.text_vectors(token_ids, valid)
        matched = self.match(seen.features, token_ids, valid)
        return matched, self.caption_logits(seen.cache, token_ids, valid) if self.config.language_head else None

    def normalize(self, pixels: UInt8[Array, "n h w 3"] | Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
        """Bytes as the tower takes them; floats are so already."""
        config = self.config
        if pixels.dtype != jnp.uint8:
            return pixels.astype(config.dtype)
        return normalize_pixels(pixels, config.dtype, config.vision.pixel_mean, config.vision.pixel_std)

    def encode(self, pixels: UInt8[Array, "n h w 3"] | Float[Array, "n h w 3"]) -> Float[Array, "n S E"]:
        """The tower's features."""
        return shard_batch(self.vision(self.normalize(shard_batch(pixels))))

    def see(self, features: Float[Array, "n S E"], row_ids: Draws = None) -> Seen:
        """What the queries read of the tower's features. row_ids, here and below: as of `QFormer`."""
        normalized = self.connector.normalize(features)
        states, cache = self.connector.read(normalized, row_ids=row_ids)
        return Seen(normalized, unit_length(self.image_projection(states)), cache)

    def text_vectors(
        self, token_ids: Int32[Array, "n T"], valid: Bool[Array, "n T"], row_ids: Draws = None
    ) -> Float[Array, "n F"]:
        """One vector of each text, length 1: of its first row, `[CLS]`."""
        return unit_length(self.text_projection(self.connector.text_alone(token_ids, valid, row_ids)[:, 0]))

    def match(
        self,
        features: Float[Array, "n S E"],
        token_ids: Int32[Array, "n T"],
        valid: Bool[Array, "n T"],
        row_ids: Draws = None,
    ) -> Float[Array, "n 2"]:
        """Float32 logits of (no pair, pair), the mean over the queries. features: normalized."""
        rows = self.connector.together(features, token_ids, valid, row_ids)
        return jnp.mean(self.matching(rows.queries).astype(jnp.float32), axis=1)

    def caption_logits(
        self, cache: Any, token_ids: Int32[Array, "n T"], valid: Bool[Array, "n T"], row_ids: Draws = None
    ) -> Float[Array, "n T V"]:
        """Float32 logits; those at t predict the token at t + 1. token_ids: their first becomes `[DEC]` here."""
        opened = token_ids.at[:, 0].set(self.config.decoding_id)
        states = self.connector.text_after(cache, opened, valid, row_ids)
        states = self.word_norm(jax.nn.gelu(self.word_dense(states), approximate=False))
        table = self.connector.text_embedding
        logits = jnp.einsum("nTD,VD->nTV", states.astype(self.config.dtype), table.astype(self.config.dtype))
        return logits.astype(jnp.float32) + self.word_bias[None, None]


def unit_length(x: Float[Array, "*n F"]) -> Float[Array, "*n F"]:
    """Vectors scaled to length 1, in float32."""
    x = x.astype(jnp.float32)
    # Not jnp.linalg.norm: its gradient at a zero vector is NaN. Lengths below 1e-12 are taken for it, as in torch.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


def similarity(images: Float[Array, "n Q F"], texts: Float[Array, "m F"]) -> Float[Array, "n m"]:
    """Cosine of each image with each text: that of its nearest query."""
    # Whole products: by default a TPU rounds vectors to bfloat16, which a temperature of 0.07 makes 14 times larger.
    return jnp.max(jnp.einsum("nQF,mF->nmQ", images, texts, precision="highest"), axis=-1)


def variables(params: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's tree as `Blip2` reads it."""
    parts = {"vision": params["vision"], "connector": join_text(params["connector"], params["text"])}
    return {"params": parts | dict(params["heads"])}


def tree_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `variables`: what `Blip2` was initialised with as {vision, connector, text, heads}."""
    connector, text = split_text(params["connector"])
    heads = {name: params[name] for name in HEADS if name in params}
    return {"vision": params["vision"], "connector": connector, "text": text, "heads": heads}


def initialize(config: Blip2Config, key: Array) -> dict[str, Any]:
    """Parameters from a key, boxed with their logical axis names: `nn.unbox` gives arrays, `jax.eval_shape` works."""
    side = config.vision.image_size_px
    pixels, ids = jnp.zeros((1, side, side, 3), jnp.uint8), jnp.zeros((1, 2), jnp.int32)
    return tree_of(Blip2(config).init(key, pixels, ids, ids == 0)["params"])
