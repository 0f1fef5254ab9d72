"""Frechet distance of two sets of features (docs/reference/blip3o.md#image-benchmarks); FID where they are Inception's.

The features are given; the Inception network that FID is defined by is not part of this.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float, Float64
import numpy as np


class Statistics(NamedTuple):
    """Of features, in float64. covariance: divided by count - 1."""

    mean: Float64[np.ndarray, " d"]
    covariance: Float64[np.ndarray, "d d"]
    count: int


def statistics(features: Float[np.ndarray, "n d"]) -> Statistics:
    """Mean and covariance of a picture's features a row.

    Raises:
        ValueError: fewer than two rows, which have no covariance, or a number that is not finite.
    """
    if len(features) < 2:
        raise ValueError(f"fid: got {len(features)} pictures' features, wanted two or more; one has no covariance.")
    if not np.isfinite(features).all():
        raise ValueError("fid: got features that are not finite; extract them again.")
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    centered = values - mean
    return Statistics(mean, centered.T @ centered / (len(values) - 1), len(values))


def distance(first: Statistics, second: Statistics) -> float:
    """Squared distance of the means + tr(A + B - 2 (A B)^1/2); of equal statistics 0 to rounding, of either sign.

    tr (A B)^1/2 is the sum of singular values of the product of two factors of A and B, which is real and defined
    where they are singular: of fewer pictures than features. Relative to torchmetrics 1.9.0: 1e-9 at full rank, else
    1e-7.

    Raises:
        ValueError: features of unlike width.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"fid: got features of {first.mean.size} and of {second.mean.size} numbers; wanted as many.")
    offset = first.mean - second.mean
    shared = np.linalg.svd(_factor(first.covariance).T @ _factor(second.covariance), compute_uv=False).sum()
    return float(offset @ offset + np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared)


def _factor(covariance: Float64[np.ndarray, "d d"]) -> Float64[np.ndarray, "d d"]:
    """L of covariance = L L^T; what rounding made negative is zero."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def by_category(
    first: Mapping[str, Float[np.ndarray, "_n d"]], second: Mapping[str, Float[np.ndarray, "_n d"]]
) -> dict[str, float]:
    """Distances of each category, and under "overall" that of all together, which is not their mean.

    Raises:
        ValueError: the sets have unlike categories.
    """
    if differing := set(first) ^ set(second):
        raise ValueError(f"fid: got the category '{min(differing)}' in one set alone; wanted the same in both.")
    both = {name: (first[name], second[name]) for name in first}
    both["overall"] = (np.concatenate(list(first.values())), np.concatenate([second[name] for name in first]))
    return {name: distance(statistics(one), statistics(other)) for name, (one, other) in both.items()}
