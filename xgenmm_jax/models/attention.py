"""Attention for every model: one function, plus the mask of packed, causal, windowed rows."""

from enum import Enum

from flax import linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

SMALLEST_CHUNK = 128
MOST_CHUNKS = 8
"""Causal rows are computed in chunks of queries, each with the keys up to its end: at 256 positions a quarter of the
scores is never computed, at 1024 nearly half. Smaller chunks save less than their compile time costs."""


class Window(Enum):
    """How many keys a token sees in sliding attention of size w (spec: transformers' versions disagree).

    W_PLUS_1: keys i-w..i (w + 1 of them), W: keys i-w+1..i, NONE: all up to itself. Counted in positions.
    """

    W_PLUS_1 = "w_plus_1"
    W = "w"
    NONE = "none"


def causal_mask(
    query_segments: Int32[Array, "B T"],
    query_positions: Int32[Array, "B T"],
    key_segments: Int32[Array, "B S"],
    key_positions: Int32[Array, "B S"],
    window: Window,
    window_size: int,
) -> Bool[Array, "B T S"]:
    """True where query t may see key s: same segment, not later, inside the window.

    Segment 0 is padding and is seen by nobody. Segments 1 1 2 0 at positions 0 1 0 0 without window give

        1 0 0 0
        1 1 0 0
        0 0 1 0
        0 0 0 0    a row without keys: `attend` gives it the mean of all values, which nobody reads
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    mask = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments[:, None, :] > 0) & (distance >= 0)
    if window is Window.W_PLUS_1:
        mask &= distance <= window_size
    elif window is Window.W:
        mask &= distance < window_size
    return mask


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "B #T S"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B T N H"]:
    """softmax(query key^T / sqrt(H)) value, each key-value head serving N / K neighbouring query heads.

    mask: True where a key is seen; None sees all. causal: the caller's word that its mask hides every key s > t, so
    that those need not be computed. Scores and softmax are float32, the second product takes the values' dtype.
    """
    length = query.shape[1]
    chunk = max(SMALLEST_CHUNK, -(-length // MOST_CHUNKS))
    if not causal or key.shape[1] != length or length <= chunk:
        return checkpoint_name(_attend_whole(query, key, value, mask), "context")
    contexts = []
    for start in range(0, length, chunk):
        end = min(start + chunk, length)
        seen = None if mask is None else mask[:, start:end, :end]
        contexts.append(_attend_whole(query[:, start:end], key[:, :end], value[:, :end], seen))
    return checkpoint_name(jnp.concatenate(contexts, axis=1), "context")


def _attend_whole(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "B #T S"] | None,
) -> Float[Array, "B T N H"]:
    batch, length, heads, width = query.shape
    keys, kv_heads = key.shape[1:3]
    group = heads // kv_heads
    # Heads before positions, a group's queries below each other: plain batched products, 3 times faster on a CPU than
    # the einsum "BTKGH,BSKH->BKGTS".
    query_BKRH = (query * width**-0.5).reshape(batch, length, kv_heads, group, width).transpose(0, 2, 3, 1, 4)
    query_BKRH = query_BKRH.reshape(batch, kv_heads, group * length, width)
    scores = jnp.einsum("BKRH,BSKH->BKRS", query_BKRH, key, preferred_element_type=jnp.float32)
    scores_BKGTS = scores.reshape(batch, kv_heads, group, length, keys)
    if mask is not None:
        # The smallest finite number and not -inf: a row without any key must not become NaN.
        scores_BKGTS = jnp.where(mask[:, None, None], scores_BKGTS, jnp.finfo(jnp.float32).min)
    largest = jax.lax.stop_gradient(jnp.max(scores_BKGTS, axis=-1, keepdims=True))
    weights_BKGTS = jnp.exp(scores_BKGTS - largest)
    # Dividing after the product and not before it touches T x H numbers instead of T x S: a third of the backward pass.
    total_BKGT1 = jnp.sum(weights_BKGTS, axis=-1, keepdims=True)
    weights_BKRS = weights_BKGTS.reshape(scores.shape).astype(value.dtype)
    context = jnp.einsum("BKRS,BSKH->BKRH", weights_BKRS, value, preferred_element_type=jnp.float32)
    context_BKGTH = context.reshape(batch, kv_heads, group, length, width) / total_BKGT1
    return context_BKGTH.astype(value.dtype).transpose(0, 3, 1, 2, 4).reshape(query.shape)


def keep_attention(
    module: nn.Module,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    mask: Bool[Array, "B #T S"] | None = None,
) -> None:
    """Sows the weights [B N T S] under the module's "attention", where a caller has made that collection mutable.

    Layers of a scan stack theirs on a leading axis.
    """
    # While initialising every collection is mutable.
    if module.is_mutable_collection("attention") and not module.is_initializing():
        key = jnp.repeat(key, query.shape[2] // key.shape[2], axis=2)
        module.sow("attention", "weights", attention_weights(query, key, mask))


def attention_weights(
    query: Float[Array, "B T N H"], key: Float[Array, "B S N H"], mask: Bool[Array, "B #T S"] | None = None
) -> Float[Array, "B N T S"]:
    """What `attend` weighs the values with, for pictures of where a model looks. Float32."""
    scores_BNTS = jnp.einsum(
        "BTNH,BSNH->BNTS", query * query.shape[-1] ** -0.5, key, preferred_element_type=jnp.float32
    )
    if mask is not None:
        scores_BNTS = jnp.where(mask[:, None], scores_BNTS, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores_BNTS, axis=-1)
