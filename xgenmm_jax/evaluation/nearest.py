"""How alike images are to a model's vision tower: unit vectors of its features, for demonstrations by nearness."""

from collections.abc import Iterable, Mapping
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.vision_tokens import UnreadableImage, View, image_batch
from xgenmm_jax.models.blip3 import VLM, VLMConfig
from xgenmm_jax.ops.partitioning import on_host

ROWS = 32
"""Images that go through the tower together."""


def image_features(generator: Generator, images: Iterable[LazyImage]) -> Mapping[int, np.ndarray]:
    """By the image's `id()`: the mean of the tower's last states over its global view, [E] float32, of length 1.

    Images that cannot be read are left out.
    """
    unique = list({id(image): image for image in images}.values())
    whole = generator.one_view
    vectors: dict[int, np.ndarray] = {}
    for start in range(0, len(unique), ROWS):
        views, pixels = [], []
        for image in unique[start : start + ROWS]:
            view = View(image, whole, ())
            try:
                pixels.append(view.pixels())
            except (ValueError, OSError, UnreadableImage):
                continue
            views.append(view)
        if not views:
            continue
        batch = image_batch(views, pixels, ROWS, 0)
        features = on_host(_pooled(generator.config, generator.params, batch))
        vectors |= {id(view.image): vector for view, vector in zip(views, features, strict=False)}
    return vectors


@functools.partial(jax.jit, static_argnames=("config",))
def _pooled(config: VLMConfig, params: PyTree, batch: Batch) -> Float[Array, "n E"]:
    features = VLM(config).apply({"params": params}, batch, method="features")[:, 0]
    mean = features.astype(jnp.float32).mean(axis=1)
    return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
