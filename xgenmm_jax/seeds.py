"""Random keys of seeds of any size."""

import jax
from jaxtyping import PRNGKeyArray
import numpy as np


def random_key(seed: int) -> PRNGKeyArray:
    """The key of a seed: that of `jax.random.key` for 0 to 2**32 - 1, and another for every other whole number.

    JAX itself cuts a seed to its lowest 32 bits: 5, 2**32 + 5 and 5 - 2**32 would draw the same. Here a larger one's
    32-bit words are folded in behind the lowest, and a 0, which ends no positive one's, behind those of a negative one.
    """
    words = [abs(seed) >> shift & 0xFFFFFFFF for shift in range(0, max(seed.bit_length(), 1), 32)]
    key = jax.random.key(words[0])
    for word in (*words[1:], *((0,) if seed < 0 else ())):
        key = jax.random.fold_in(key, np.uint32(word))
    return key
