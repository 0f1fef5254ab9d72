"""Rotary embedding: angles of positions and of cells, Llama 3's stretching, rotation of queries and keys."""

from dataclasses import dataclass
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32


@dataclass(frozen=True)
class LongContext:
    """Llama 3's rotary scaling, "rope_type": "llama3", beyond the `trained_length` positions of pre-training.

    Angles that turn more than `high_frequency` times over these positions stay, those that turn fewer than
    `low_frequency` times become `factor` times slower; between them both are mixed. Defaults are Llama 3.1's.

    Source: docs/reference/checkpoints.md#llama-names (transformers' `modeling_rope_utils`).
    """

    factor: float = 8.0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    trained_length: int = 8192

    def __post_init__(self):
        if not (self.factor >= 1 and 0 < self.low_frequency < self.high_frequency and self.trained_length > 0):
            raise ValueError(
                f"long_context: got factor {self.factor}, frequencies {self.low_frequency} to {self.high_frequency}, "
                f"{self.trained_length} positions; wanted a factor of at least 1 and a low below a high frequency."
            )

    def stretched(self, frequency: Float32[Array, " h"]) -> Float32[Array, " h"]:
        """Radians a position, before and after."""
        turns = self.trained_length * frequency / (2 * math.pi)
        weight = jnp.clip((turns - self.low_frequency) / (self.high_frequency - self.low_frequency), 0, 1)
        return (1 - weight) * frequency / self.factor + weight * frequency


def rotary_angles(
    positions: Int32[Array, "B T"], head_width: int, theta: float, long_context: LongContext | None = None
) -> tuple[Float[Array, "B T 1 H"], Float[Array, "B T 1 H"]]:
    """Cosine and sine, float32, of position / theta^(2i / H), the H / 2 angles written twice."""
    frequency = theta ** -(jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width)
    if long_context is not None:
        frequency = long_context.stretched(frequency)
    angle = positions[..., None].astype(jnp.float32) * frequency[None, None]
    angle = jnp.concatenate([angle, angle], axis=-1)[:, :, None]
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "B T N H"], cos: Float[Array, "B T 1 H"], sin: Float[Array, "B T 1 H"]
) -> Float[Array, "B T N H"]:
    """Rotary embedding, half-split: channel i pairs with i + H / 2. Float32 inside."""
    x_float32 = x.astype(jnp.float32)
    first, second = jnp.split(x_float32, 2, axis=-1)
    return (x_float32 * cos + jnp.concatenate([-second, first], axis=-1) * sin).astype(x.dtype)


def grid_angles(
    rows: int, columns: int, head_width: int, theta: float = 10000.0
) -> tuple[Float32[Array, "1 T 1 h"], Float32[Array, "1 T 1 h"]]:
    """Cosine and sine for a grid's T = rows * columns cells in raster order, an angle for each of the h = H / 2 pairs.

    Pair 2k turns by row / theta^(4k / H), pair 2k + 1 by column / theta^(4k / H). head_width: a multiple of 4.

    Source: docs/reference/blip3o.md#dit (diffusers' Lumina).
    """
    frequency = theta ** -(jnp.arange(0, head_width, 4, dtype=jnp.float32) / head_width)
    cells = (rows, columns, frequency.size)
    by_row = jnp.arange(rows, dtype=jnp.float32)[:, None, None] * frequency[None, None]
    by_column = jnp.arange(columns, dtype=jnp.float32)[None, :, None] * frequency[None, None]
    angle = jnp.stack([jnp.broadcast_to(by_row, cells), jnp.broadcast_to(by_column, cells)], axis=-1)
    angle = angle.reshape(1, rows * columns, 1, head_width // 2)
    return jnp.cos(angle), jnp.sin(angle)


def rotate_pairs(
    x: Float[Array, "B T N H"], cos: Float32[Array, "1 T 1 h"], sin: Float32[Array, "1 T 1 h"]
) -> Float[Array, "B T N H"]:
    """Rotary embedding of neighbours: channel 2i pairs with 2i + 1. Float32 inside."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)
