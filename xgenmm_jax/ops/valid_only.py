"""Work on the crops that exist, where a row has room for more."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

CHUNKS = 8
"""Into how many parts crops are cut: on average half a part is computed in vain."""


def on_real_crops(
    function: Callable[[Shaped[Array, "k ..."]], Float[Array, "k P E"]],
    crops: Shaped[Array, "n ..."],
    is_real: Bool[Array, " n"],
) -> Float[Array, "n P E"]:
    """function of the crops, zeros for those that do not exist; the order stays. function must treat crops alike.

    The real ones are moved to the front and taken a chunk at a time; chunks without any are not computed. For one
    GPU: over a mesh it would carry crops between devices, and on two processor cores nano's step is no faster by it.
    3 of 16 real: chunks of 2, two of which are computed.
    """
    count = crops.shape[0]
    size = -(-count // CHUNKS)
    order = jnp.argsort(~is_real, stable=True)
    moved = jnp.pad(crops[order], ((0, size * CHUNKS - count),) + ((0, 0),) * (crops.ndim - 1))
    chunks = moved.reshape(CHUNKS, size, *crops.shape[1:])
    wanted = jnp.arange(CHUNKS) * size < jnp.sum(is_real)
    result = jax.eval_shape(function, chunks[0])

    def step(_, chunk):
        pixels, is_wanted = chunk
        return None, jax.lax.cond(is_wanted, function, lambda _: jnp.zeros(result.shape, result.dtype), pixels)

    _, found = jax.lax.scan(step, None, (chunks, wanted))
    return found.reshape(CHUNKS * size, *result.shape[1:])[jnp.argsort(order)]
