"""BLIP-2's Q-Former: learned queries that read image features, and text rows beside them that do not.

Rows are queries, text, or both; every second layer lets the queries read the features. As a connector of the VLM it has
queries alone and a map to the decoder's width. Post-norm, as BERT is; the stream between linear maps is float32.

Source: docs/reference/blip2.md#q-former and docs/reference/blip2.md#modes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from xgenmm_jax.models import dropout
from xgenmm_jax.models.dropout import Draws
from xgenmm_jax.models.layers import Dtype, KeyValue, LayerNorm, Linear, MultiHeadAttention, shard_batch, torch_linear
from xgenmm_jax.models.remat import Remat, scan_layers
from xgenmm_jax.ops.attention_choice import Implementation
from xgenmm_jax.ops.masks import AttentionMask, key_padding_mask

INIT = nn.initializers.normal(0.02)
TEXT = "text_"
"""What the names of all parameters begin with that text rows alone read."""


@dataclass(frozen=True)
class QFormerConfig:
    """Defaults are the released one's. width is the tower's, out_width the decoder's, inner that of queries and text.

    out_width: 0: no map behind the queries, as in stage 1. cross_every: one layer in so many reads the features, the
    first among them. feature_epsilon: of the norm of the features, 1e-5 in LAVIS and 1e-6 in transformers. dropout: the
    share that training drops where BERT does: of embeddings behind their norm, of attention weights, and of what each
    attention and feed-forward adds. 0.1 in BLIP-2.

    Raises ValueError where heads do not divide the inner width, there are fewer layers than cross_every, or dropout is
    no share.
    """

    width: int = 1408
    inner: int = 768
    hidden: int = 3072
    layers: int = 12
    heads: int = 12
    queries: int = 32
    out_width: int = 0
    cross_every: int = 2
    epsilon: float = 1e-12
    feature_epsilon: float = 1e-5
    remat: Remat = "none"
    attention: Implementation = "auto"
    dropout: float = 0.0

    def __post_init__(self):
        if not 0 <= self.dropout < 1:
            raise ValueError(f"connector.dropout: got {self.dropout}, wanted a share from 0 to below 1.")
        if self.inner % self.heads or not 0 < self.cross_every <= self.layers:
            raise ValueError(
                f"connector: got an inner width of {self.inner} for {self.heads} heads and {self.layers} layers for "
                f"cross_every {self.cross_every}; wanted whole heads, and cross_every from 1 to the layers."
            )

    @property
    def groups(self) -> int:
        """Whole groups of cross_every layers, the first of which reads; what is left makes a last, shorter one."""
        return self.layers // self.cross_every

    @property
    def readers(self) -> int:
        """Layers that read the features."""
        return len(range(0, self.layers, self.cross_every))


@dataclass(frozen=True)
class QFormerText:
    """Sizes of the text rows' embeddings."""

    vocab_size: int = 30523
    max_positions: int = 512


class Masks(NamedTuple):
    """Who reads whom: rows each other (all where it is empty), and queries the features."""

    rows: AttentionMask = AttentionMask()
    features: AttentionMask = AttentionMask()


class Rows(NamedTuple):
    """States of what is there."""

    queries: Float[Array, "n Q D"] | None = None
    text: Float[Array, "n T D"] | None = None


class FeedForward(nn.Module):
    """norm(fc2(gelu(fc1(x))) + x)."""

    config: QFormerConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "n T D"], draws: Draws = None) -> Float[Array, "n T D"]:
        config, zeros = self.config, nn.initializers.zeros
        up = Linear((config.hidden,), ("vision_embed", "mlp"), INIT, zeros, self.dtype, name="fc1")(x)
        active = jax.nn.gelu(checkpoint_name(up, "mlp_in"), approximate=False)
        down = Linear((config.inner,), ("mlp", "vision_embed"), INIT, zeros, self.dtype, name="fc2")(active)
        down = dropout.drop(self, down, config.dropout, draws)
        return LayerNorm(config.inner, config.epsilon, name="norm")(down + x)


class QFormerLayer(nn.Module):
    """Rows read each other; queries may read the features; queries and text have feed-forwards of their own."""

    config: QFormerConfig
    dtype: Dtype
    reads_features: bool

    @nn.compact
    def __call__(
        self,
        rows: Rows,
        earlier: KeyValue | None,
        features: Float[Array, "n S E"] | None,
        masks: Masks,
        draws: Draws = None,
    ) -> tuple[Rows, KeyValue]:
        """Gives the rows, and keys and values that they had; earlier: those of queries that are not among the rows."""
        config = self.config
        x = jnp.concatenate([one for one in rows if one is not None], axis=1)
        x = checkpoint_name(x, "layer_input")
        added, key_value = _attention(config, self.dtype, "attention").with_keys(x, None, masks.rows, earlier, draws)
        x = LayerNorm(config.inner, config.epsilon, name="attention_norm")(added + x)
        count = 0 if rows.queries is None else rows.queries.shape[1]
        queries, text = None, None
        if rows.queries is not None:
            queries = x[:, :count]
            if self.reads_features:
                added = _attention(config, self.dtype, "cross")(queries, features, masks.features, draws)
                queries = LayerNorm(config.inner, config.epsilon, name="cross_norm")(added + queries)
            queries = shard_batch(FeedForward(config, self.dtype, name="mlp")(queries, draws))
        if rows.text is not None:
            text = shard_batch(FeedForward(config, self.dtype, name=f"{TEXT}mlp")(x[:, count:], draws))
        return Rows(queries, text), key_value


def _attention(config: QFormerConfig, dtype: Dtype, name: str) -> MultiHeadAttention:
    return MultiHeadAttention(
        config.inner, config.heads, "vision_embed", dtype, config.attention, INIT, config.dropout, name=name
    )


class QFormerGroup(nn.Module):
    """`count` layers, the first of which reads the features: what the scan repeats."""

    config: QFormerConfig
    dtype: Dtype
    count: int

    @nn.compact
    def __call__(
        self,
        rows: Rows,
        earlier: tuple[KeyValue, ...] | None,
        features: Float[Array, "n S E"] | None,
        masks: Masks,
        draws: Draws,
    ) -> tuple[Rows, tuple[KeyValue, ...]]:
        caches = []
        for number in range(self.count):
            layer = QFormerLayer(self.config, self.dtype, number == 0, name=f"layer{number}")
            rows, key_value = layer(rows, None if earlier is None else earlier[number], features, masks, draws)
            caches.append(key_value)
        return rows, tuple(caches)


class QFormer(nn.Module):
    """The queries and their layers; text: where it has text rows."""

    config: QFormerConfig
    dtype: Dtype = "float32"
    text: QFormerText | None = None

    def setup(self):
        config, inner = self.config, self.config.inner
        self.query_embedding = self.param(
            "query_embedding", nn.with_logical_partitioning(INIT, (None, "vision_embed")), (config.queries, inner)
        )
        self.feature_norm = LayerNorm(config.width, config.feature_epsilon)
        self.norm = LayerNorm(inner, config.epsilon)
        self.layers = self._stack(config.groups, config.cross_every)
        left = config.layers % config.cross_every
        self.last_layers = self._stack(1, left) if left else None
        if config.out_width:
            self.projection = torch_linear(inner, config.out_width, ("vision_embed", "embed"), self.dtype)
        if self.text is not None:
            table, positions = ("vocab", "vision_embed"), (None, "vision_embed")
            shape = self.text.vocab_size, inner
            self.text_embedding = self.param("text_embedding", nn.with_logical_partitioning(INIT, table), shape)
            shape = self.text.max_positions, inner
            self.text_position_embedding = self.param(
                "text_position_embedding", nn.with_logical_partitioning(INIT, positions), shape
            )

    def _stack(self, groups: int, layers: int) -> nn.Module:
        remat = self.config.remat
        stack = scan_layers(QFormerGroup, groups, remat, scanned_inputs=1, broadcast_inputs=3)
        return stack(self.config, self.dtype, layers)

    def _run(
        self, rows: Rows, earlier: Any, features: Float[Array, "n S E"] | None, masks: Masks, draws: Draws
    ) -> tuple[Rows, Any]:
        """All layers. earlier: keys and values as another call gave them, of queries that are not among the rows."""
        of_groups, of_last = (None, None) if earlier is None else earlier
        rows, cache = self.layers(rows, of_groups, features, masks, draws)
        if self.last_layers is None:
            return rows, (cache, None)
        rows, last_cache = self.last_layers(rows, of_last, features, masks, draws)
        return rows, (cache, last_cache)

    def __call__(
        self,
        features: Float[Array, "n S E"],
        features_mask: Bool[Array, "n S"] | None = None,
        row_ids: Draws = None,
    ) -> Float[Array, "n Q D"]:
        """Vision tokens for a decoder of width D, or without `out_width` the queries' states.

        features_mask: True where a feature may be read; None: everywhere. row_ids: tell rows apart for dropout, which
        without them, or without its stream, drops nothing.
        """
        states, _ = self.read(self.normalize(features), features_mask, row_ids)
        return self.projection(states) if self.config.out_width else states

    def normalize(self, features: Float[Array, "n S E"]) -> Float[Array, "n S E"]:
        """The tower's features as the queries read them, float32."""
        return self.feature_norm(features)

    def read(
        self,
        features: Float[Array, "n S E"],
        features_mask: Bool[Array, "n S"] | None = None,
        row_ids: Draws = None,
    ) -> tuple[Float[Array, "n Q D"], Any]:
        """The queries' last states; their keys and values in every layer, for `text_after`. features: normalized."""
        mask = AttentionMask()
        if features_mask is not None:
            mask = key_padding_mask(features_mask, self.config.queries, self.config.attention)
        draws = self._draws(row_ids, 0)
        queries = dropout.drop(self, self._embed(features.shape[0]), self.config.dropout, draws)
        rows, cache = self._run(Rows(queries), None, features, Masks(features=mask), draws)
        return rows.queries, cache

    def text_alone(
        self, token_ids: Int32[Array, "n T"], valid: Bool[Array, "n T"], row_ids: Draws = None
    ) -> Float[Array, "n T D"]:
        """States of text that reads itself in both directions. valid: False for padding, whose states mean nothing."""
        masks = Masks(AttentionMask(dense=valid[:, None]))
        draws = self._draws(row_ids, 1)
        text = dropout.drop(self, self._embed_text(token_ids), self.config.dropout, draws)
        rows, _ = self._run(Rows(text=text), None, None, masks, draws)
        return rows.text

    def together(
        self,
        features: Float[Array, "n S E"],
        token_ids: Int32[Array, "n T"],
        valid: Bool[Array, "n T"],
        row_ids: Draws = None,
    ) -> Rows:
        """States of queries and text that all read each other. features: normalized."""
        seen = jnp.pad(valid, ((0, 0), (self.config.queries, 0)), constant_values=True)
        draws, embedded = self._draws(row_ids, 2), (self._embed(features.shape[0]), self._embed_text(token_ids))
        rows = Rows(*(dropout.drop(self, one, self.config.dropout, draws) for one in embedded))
        return self._run(rows, None, features, Masks(AttentionMask(dense=seen[:, None])), draws)[0]

    def text_after(
        self, cache: Any, token_ids: Int32[Array, "n T"], valid: Bool[Array, "n T"], row_ids: Draws = None
    ) -> Float[Array, "n T D"]:
        """States of text that reads all queries, whose keys and values `read` gave, and the text up to itself."""
        length = token_ids.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None] & valid[:, None]
        mask = jnp.pad(causal, ((0, 0), (0, 0), (self.config.queries, 0)), constant_values=True)
        draws = self._draws(row_ids, 3)
        text = dropout.drop(self, self._embed_text(token_ids), self.config.dropout, draws)
        rows, _ = self._run(Rows(text=text), cache, None, Masks(AttentionMask(dense=mask)), draws)
        return rows.text

    def _draws(self, row_ids: Draws, mode: int) -> Draws:
        """Of this pass over the rows: each mode has its own, whatever the layers' keys are."""
        is_on = row_ids is not None and self.config.dropout and self.has_rng(dropout.STREAM)
        return dropout.joined(row_ids, mode) if is_on else None

    def _embed(self, count: int) -> Float[Array, "n Q D"]:
        return jnp.broadcast_to(self.norm(self.query_embedding)[None], (count, *self.query_embedding.shape))

    def _embed_text(self, token_ids: Int32[Array, "n T"]) -> Float[Array, "n T D"]:
        """Positions count from 0 whatever stands before. Raises ValueError where there are too few."""
        length, most = token_ids.shape[1], len(self.text_position_embedding)
        if length > most:
            raise ValueError(
                f"connector: got {length} tokens of text, wanted at most {most}; cut the text or raise max_positions."
            )
        return self.norm(self.text_embedding[token_ids] + self.text_position_embedding[None, :length])


def split_text(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of a Q-Former with text as (those of the connector of a VLM, those that text alone reads)."""
    flat = flatten_dict(dict(params))
    of_text = {path for path in flat if any(name.startswith(TEXT) for name in path)}
    connector = {path: leaf for path, leaf in flat.items() if path not in of_text}
    return unflatten_dict(connector), unflatten_dict({path: flat[path] for path in of_text})


def join_text(connector: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `split_text`."""
    return unflatten_dict(flatten_dict(dict(connector)) | flatten_dict(dict(text)))
