"""How the next token is chosen from logits. A chooser is a plain function, so that others can stand beside greedy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, PRNGKeyArray

Chooser = Callable[[Float[Array, "B V"], PRNGKeyArray], Int32[Array, " B"]]
"""(logits, key of this step) -> ids. Static under jit: make it once, at module level or by functools.partial."""


def greedy(logits: Float[Array, "B V"], key: PRNGKeyArray) -> Int32[Array, " B"]:
    """The likeliest token, the lowest id among equals; the key is not used."""
    del key
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def step_key(key: PRNGKeyArray, step: Int32[Array, ""]) -> PRNGKeyArray:
    """The key of one step of one generation."""
    return jax.random.fold_in(key, step)
