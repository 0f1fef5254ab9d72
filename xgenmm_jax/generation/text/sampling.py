"""How the next token is chosen from logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key, PRNGKeyArray

from xgenmm_jax.generation.text.decoding import Decoding


def choose(logits: Float[Array, "B V"], keys: Key[Array, " B"], decoding: Decoding) -> Int32[Array, " B"]:
    """The next token of each row: the likeliest at temperature 0, else one drawn with the row's key alone.

    Draws are from softmax(logits / temperature), cut to the top_k likeliest tokens and of these to the fewest whose
    probabilities add up to top_p or more. Probabilities [0.5, 0.3, 0.15, 0.05]: top_p 0.8 keeps two tokens, top_p 0.81
    three, top_k 1 one.

    Source: Hugging Face's generate. There all that equal the k-th likeliest stay; here the lowest ids among them, so
    that top_k = 1 is greedy.
    """
    if not decoding.temperature:
        return greedy(logits)
    draw = jax.vmap(jax.random.categorical)
    logits = logits / decoding.temperature
    vocabulary = logits.shape[-1]
    if not decoding.top_k and decoding.top_p == 1:
        return draw(keys, logits).astype(jnp.int32)
    likeliest, ids = jax.lax.top_k(logits, min(decoding.top_k or vocabulary, vocabulary))
    if decoding.top_p < 1:
        probabilities = jax.nn.softmax(likeliest, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        # The first always stays, whatever rounding does.
        stays = (before < decoding.top_p) | (jnp.arange(likeliest.shape[-1]) == 0)[None]
        likeliest = jnp.where(stays, likeliest, -jnp.inf)
    rank = draw(keys, likeliest)
    return jnp.take_along_axis(ids, rank[:, None], axis=-1)[:, 0].astype(jnp.int32)


def greedy(logits: Float[Array, "B V"]) -> Int32[Array, " B"]:
    """The likeliest token, the lowest id among equals."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def row_keys(key: PRNGKeyArray, numbers: Int32[Array, " B"]) -> Key[Array, " B"]:
    """A key for each prompt of a call, by its number there: the batch that it falls into does not matter."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def step_keys(keys: Key[Array, " B"], step: Int32[Array, ""]) -> Key[Array, " B"]:
    """The rows' keys for one step."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
