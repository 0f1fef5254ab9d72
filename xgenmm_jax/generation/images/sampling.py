"""Euler's method from noise to data, with classifier-free guidance.

Source: docs/reference/blip3o.md#flow-matching (BLIP3-o's `sample_images` over diffusers' flow-match Euler scheduler).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32
import numpy as np

from xgenmm_jax.generation import arguments

MOST_STEPS = 1000
MOST_GUIDANCE = 100.0
Velocity = Callable[[Float32[Array, "m h w C"], Float32[Array, " m"], Float[Array, "m R D"]], Float32[Array, "m h w C"]]


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    steps: of Euler's method. guidance: how far beyond the conditioned velocity, seen from that without a condition; 1
    is the conditioned one itself. integer_time: the time that the model is told is cut to a whole number, as upstream.
    """

    steps: int = 30
    guidance: float = 3.0
    integer_time: bool = True

    def __post_init__(self):
        object.__setattr__(self, "steps", arguments.whole("steps", self.steps))
        if not isinstance(self.guidance, int | float | np.number):
            raise ValueError(f"draw: got guidance {arguments.shown(self.guidance)}; give a number, 3 is usual.")
        if not 1 <= self.steps <= MOST_STEPS:
            raise ValueError(f"draw: got steps {self.steps}, wanted 1 to {MOST_STEPS}; 30 is usual.")
        if not 0 <= self.guidance <= MOST_GUIDANCE:
            raise ValueError(f"draw: got guidance {self.guidance}, wanted 0 to {MOST_GUIDANCE:g}; 3 is usual.")


def sigmas(steps: int) -> Float32[np.ndarray, " n"]:
    """Noise levels from 1 to 1 / steps, evenly, then 0."""
    return np.append(np.linspace(1.0, 1.0 / steps, steps), 0.0).astype(np.float32)


def euler(
    velocity: Velocity, start: Float32[Array, "n h w C"], states: Float[Array, "n R D"], sampling: Sampling
) -> Float32[Array, "n h w C"]:
    """What noise becomes. velocity: (x, 1000 sigma, states) -> dx / dsigma; called once a step for both branches.

    Without a condition its states are zeros, and stand first in the call.
    """
    levels = jnp.asarray(sigmas(sampling.steps))
    both = jnp.concatenate([jnp.zeros_like(states), states])

    def step(x: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
        sigma, following = level
        time = sigma * 1000
        if sampling.integer_time:
            time = jnp.floor(time)
        of_null, of_states = jnp.split(
            velocity(jnp.concatenate([x, x]), jnp.full((2 * len(x),), time), both), 2
        )
        return x + (following - sigma) * (of_null + sampling.guidance * (of_states - of_null)), None

    return jax.lax.scan(step, start.astype(jnp.float32), (levels[:-1], levels[1:]))[0]
