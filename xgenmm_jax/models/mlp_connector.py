"""The MLP connector, the alternative to the resampler that the paper compares: two layers, then 2x2 max pooling."""

from dataclasses import dataclass
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from xgenmm_jax.models.layers import Dtype, torch_linear


@dataclass(frozen=True)
class MLPConnectorConfig:
    """width is the tower's, out_width the decoder's and the hidden one. pool: cells along a side that become one."""

    width: int = 1152
    out_width: int = 3072
    pool: int = 2


class MLPConnector(nn.Module):
    """Linear, GELU, Linear on each patch, then max pooling over the grid."""

    config: MLPConnectorConfig
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, features: Float[Array, "n P E"]) -> Float[Array, "n Q D"]:
        """features: a square grid in raster order. An odd last row and column are kept: 27 x 27 gives 14 x 14 = 196."""
        width, out = self.config.width, self.config.out_width
        x = torch_linear(width, out, ("vision_embed", "mlp"), self.dtype, "fc1")(features)
        x = torch_linear(out, out, ("mlp", "embed"), self.dtype, "fc2")(jax.nn.gelu(x, approximate=False))
        return max_pool(x, self.config.pool)


def max_pool(x: Float[Array, "n P D"], pool: int) -> Float[Array, "n Q D"]:
    """Maximum over pool x pool cells of a square grid; the last cells of a side that does not divide pool alone."""
    count, patches, width = x.shape
    side = math.isqrt(patches)
    pooled = pooled_side(side, pool)
    spare = pooled * pool - side
    grid = x.reshape(count, side, side, width)
    grid = jnp.pad(grid, ((0, 0), (0, spare), (0, spare), (0, 0)), constant_values=-jnp.inf)
    cells = grid.reshape(count, pooled, pool, pooled, pool, width)
    return cells.max(axis=(2, 4)).reshape(count, pooled**2, width)


def pooled_side(side: int, pool: int) -> int:
    """Cells along a side after pooling: 27 pooled by 2 gives 14."""
    return -(-side // pool)
