"""Averages of a grid of features over fewer cells."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32
import numpy as np


def pool_grid(features: Float[Array, "n G G C"], cells: int) -> Float[Array, "n g g C"]:
    """Means over cells x cells parts of a square grid, which overlap where they do not divide it.

    Part i reaches from floor(i G / g) to ceil((i + 1) G / g), as in torch's adaptive_avg_pool2d. Where g divides G it
    is the plain average pooling.
    """
    side = features.shape[1]
    if side % cells == 0:
        step = side // cells
        return jnp.mean(features.reshape(len(features), cells, step, cells, step, -1), axis=(2, 4))
    weights = jnp.asarray(_weights(side, cells))
    # Whole products: by default a TPU rounds features and weights to bfloat16.
    return jnp.einsum("ij,njkc,lk->nilc", weights, features, weights, precision="highest")


def _weights(side: int, cells: int) -> Float32[np.ndarray, "g G"]:
    """Of each part, what a row counts in its mean."""
    weights = np.zeros((cells, side), np.float32)
    for cell in range(cells):
        start, end = cell * side // cells, -(-(cell + 1) * side // cells)
        weights[cell, start:end] = 1 / (end - start)
    return weights
