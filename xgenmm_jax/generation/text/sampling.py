"""How the next token is chosen from logits."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key, PRNGKeyArray

Chooser = Callable[[Float[Array, "B V"], Key[Array, " B"]], Int32[Array, " B"]]
"""(logits, a key for each row) -> ids. Static under jit: equal ones must compare equal, as functions and `Sampler`s."""

LEAST_TEMPERATURE = 1e-30
"""Above 0; logits divided by less overflow."""


def greedy(logits: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int32[Array, " B"]:
    """The likeliest token, the lowest id among equals; the keys are not used."""
    del keys
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@dataclass(frozen=True)
class Sampler:
    """Draws from softmax(logits / temperature), cut to its likeliest tokens.

    temperature: above 0; for 0 use `greedy`. top_k: this many tokens stay, 0 keeps all. top_p: of these, the fewest
    whose probabilities add up to top_p or more stay.

    Order and meaning are those of Hugging Face's generate, except that among equals at the edge of top_k the lowest
    ids stay and not all of them, so that top_k = 1 is `greedy`.

    Example, probabilities [0.5, 0.3, 0.15, 0.05]: top_p 0.8 keeps two tokens, top_p 0.81 three, top_k 1 one.

    Raises ValueError for settings that mean nothing.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"sampling: got temperature {self.temperature}; give more than 0, or decode greedily.")
        if self.temperature < LEAST_TEMPERATURE:
            raise ValueError(
                f"sampling: got temperature {self.temperature}, by which float32 cannot divide; give "
                f"{LEAST_TEMPERATURE} or more, or 0 for the likeliest token."
            )
        if self.top_k < 0:
            raise ValueError(f"sampling: got top_k {self.top_k}; give 1 or more, or 0 for all tokens.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling: got top_p {self.top_p}; give more than 0 and at most 1.")

    def __call__(self, logits: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int32[Array, " B"]:
        """One id a row, drawn with the row's key alone: rows beside it change nothing."""
        draw = jax.vmap(jax.random.categorical)
        logits = logits / self.temperature
        if not self.top_k and self.top_p == 1:
            return draw(keys, logits).astype(jnp.int32)
        likeliest, ids = jax.lax.top_k(logits, min(self.top_k or logits.shape[-1], logits.shape[-1]))
        if self.top_p < 1:
            probabilities = jax.nn.softmax(likeliest, axis=-1)
            before = jnp.cumsum(probabilities, axis=-1) - probabilities
            # The first always stays, whatever rounding does.
            stays = (before < self.top_p) | (jnp.arange(likeliest.shape[-1]) == 0)[None]
            likeliest = jnp.where(stays, likeliest, -jnp.inf)
        place = draw(keys, likeliest)
        return jnp.take_along_axis(ids, place[:, None], axis=-1)[:, 0].astype(jnp.int32)


def chooser(temperature: float, top_k: int, top_p: float) -> Chooser:
    """`greedy` for temperature 0, else a `Sampler`.

    Raises ValueError for settings that mean nothing, or nothing at temperature 0.
    """
    if temperature:
        return Sampler(temperature, top_k, top_p)
    if top_k or top_p != 1:
        raise ValueError(
            f"sampling: got top_k {top_k} and top_p {top_p} at temperature 0, where nothing is drawn; "
            "give a temperature, as 1.0."
        )
    return greedy


def row_keys(key: PRNGKeyArray, numbers: Int32[Array, " B"]) -> Key[Array, " B"]:
    """A key for each prompt of a call, by its number there: the batch that it falls into does not matter."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def step_keys(keys: Key[Array, " B"], step: Int32[Array, ""]) -> Key[Array, " B"]:
    """The rows' keys for one step."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
