"""Attention written out in XLA's own operations: any mask, any platform; what a CPU runs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SMALLEST_CHUNK = 128
MOST_CHUNKS = 8
"""Causal rows are computed in chunks of queries, each with the keys up to its end: at 256 positions a quarter of the
scores is never computed, at 1024 nearly half. Smaller chunks save less than their compile time costs."""


def xla_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "B #T S"] | None,
    causal: bool,
) -> Float[Array, "B T N H"]:
    """softmax(query key^T / sqrt(H)) value over the keys that `mask` shows; None shows all.

    causal: True only where the queries are the last of the keys and the mask hides every later key; those are not
    computed then. Scores and softmax are float32, the second product takes the values' dtype. A query
    without keys gets the mean of some values.
    """
    length, before = query.shape[1], key.shape[1] - query.shape[1]
    chunk = max(SMALLEST_CHUNK, -(-length // MOST_CHUNKS))
    if not causal or length <= chunk:
        return dense_attention(query, key, value, mask)
    contexts = []
    for start in range(0, length, chunk):
        end = min(start + chunk, length)
        chunk_mask = None if mask is None else mask[:, start:end, : before + end]
        key_chunk, value_chunk = key[:, : before + end], value[:, : before + end]
        contexts.append(dense_attention(query[:, start:end], key_chunk, value_chunk, chunk_mask))
    return jnp.concatenate(contexts, axis=1)


def dense_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "B #T S"] | None,
) -> Float[Array, "B T N H"]:
    batch, length, heads, width = query.shape
    keys, kv_heads = key.shape[1:3]
    group = heads // kv_heads
    query_BKRH = group_heads(query * width**-0.5, kv_heads)
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
    context_BKRH = context / total_BKGT1.reshape(*context.shape[:3], 1)
    return ungroup_heads(context_BKRH.astype(value.dtype), heads)


def group_heads(x: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B K R H"]:
    """Heads before positions, those of a group below each other: R is a group's heads times T.

    The einsums become plain batched products, 3 times faster on a CPU than "BTKGH,BSKH->BKGTS".
    """
    batch, length, heads, width = x.shape
    x = x.reshape(batch, length, kv_heads, heads // kv_heads, width).transpose(0, 2, 3, 1, 4)
    return x.reshape(batch, kv_heads, -1, width)


def ungroup_heads(x: Float[Array, "B K R H"], heads: int) -> Float[Array, "B T N H"]:
    """The inverse of `group_heads`."""
    batch, kv_heads, _, width = x.shape
    x = x.reshape(batch, kv_heads, heads // kv_heads, -1, width).transpose(0, 3, 1, 2, 4)
    return x.reshape(batch, -1, heads, width)
