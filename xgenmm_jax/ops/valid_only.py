"""Work on the crops that exist, where a row has room for more."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

CHUNKS = 8
"""Number of parts that crops are split into: on average half a part is computed for padding."""


def on_valid_crops(
    function: Callable[[Shaped[Array, "k ..."]], Float[Array, "k P E"]],
    crops: Shaped[Array, "n ..."],
    is_valid: Bool[Array, " n"],
) -> Float[Array, "n P E"]:
    """function of the valid crops, zeros for padding; the order stays. function must treat crops alike.

    Valid crops are moved to the front and taken a chunk at a time; chunks of padding alone are not computed. For one
    GPU: over a mesh it would carry crops between devices, and on two processor cores nano's step is no faster by it.
    3 of 16 valid: chunks of 2, two of which are computed.
    """
    count = crops.shape[0]
    size = -(-count // CHUNKS)
    order = jnp.argsort(~is_valid, stable=True)
    valid_first = jnp.pad(crops[order], ((0, size * CHUNKS - count),) + ((0, 0),) * (crops.ndim - 1))
    chunks = valid_first.reshape(CHUNKS, size, *crops.shape[1:])
    has_valid = jnp.arange(CHUNKS) * size < jnp.sum(is_valid)
    result = jax.eval_shape(function, chunks[0])

    def step(_, chunk):
        pixels, is_computed = chunk
        return None, jax.lax.cond(is_computed, function, lambda _: jnp.zeros(result.shape, result.dtype), pixels)

    _, results = jax.lax.scan(step, None, (chunks, has_valid))
    return results.reshape(CHUNKS * size, *result.shape[1:])[jnp.argsort(order)]
