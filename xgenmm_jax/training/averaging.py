"""A moving average of the trained parameters, kept in the optimizer's state, so that a checkpoint has it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32
import optax

Params = Any


class WithAverage(NamedTuple):
    """The state of an optimizer, and the average of what it changes."""

    inner: Any
    average: Params


def averaged(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer with room for an average, which begins as the parameters; `moved` goes on with it."""

    def init(params: Params) -> WithAverage:
        return WithAverage(optimizer.init(params), jax.tree.map(jnp.array, params))

    def update(updates: Params, state: WithAverage, params: Params | None = None) -> tuple[Params, WithAverage]:
        updates, inner = optimizer.update(updates, state.inner, params)
        return updates, WithAverage(inner, state.average)

    return optax.GradientTransformation(init, update)


def moved(state: WithAverage, params: Params, decay: float, step: Int32[Array, ""]) -> WithAverage:
    """The average after a step. params: those behind it. step: how many were taken before it."""
    share = 1 - weight_of_old(decay, step)
    # As a difference: parameters that do not change leave the average as it is, to the last bit.
    average = jax.tree.map(lambda old, new: old + share * (new - old), state.average, params)
    return WithAverage(state.inner, average)


def weight_of_old(decay: float, step: Int32[Array, ""]) -> Float32[Array, ""]:
    """What the average counts beside new parameters: little at first, as it begins with random ones."""
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + step) / (10 + step))
