"""A resampler that starts as pooling: each query reads one cell of the image and passes its patches on.

With random weights (the released code's start) every query first averages the whole image, and a run of a few minutes
is too short to change that. Here each query is assigned a cell of a grid before the first step; training is free to
move it. Ours, not the paper's. What it saves:
docs/log/connector_and_optimizer.md#pooling-start-and-muon.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.layers import normalize_pixels
from xgenmm_jax.models.resampler import EPSILON, ResamplerConfig
from xgenmm_jax.models.vit import ViT, ViTConfig
from xgenmm_jax.seeds import random_key
from xgenmm_jax.training.objectives.base import Params

IMAGES = 256
RIDGE = 0.02
SHARPNESS = 6.0
"""By how much the patches of a query's cell score above the others, in logits and on average."""
LATENTS = 0.3
"""Of their usual size: beside features of size 1 they still tell the queries apart."""
TOKEN_SIZE = 1.7
"""Of a vision token, in sizes of a word's embedding: as if the names of three things were added."""
LATER_LAYERS = 0.3
"""Of their usual size: what the layers after the first add."""


def pooling_start(params: Params, model: VLMConfig, seed: int) -> Params:
    """`start_as_pooling` as `Initialize.connector_start` takes it: of all parts' parameters, the connector's.

    Raises ValueError where the model's connector is no resampler, or its heads are too narrow.
    """
    if not isinstance(model.connector, ResamplerConfig):
        raise ValueError("initialize.connector_start: only a resampler can start as pooling; leave it None.")
    embedding = params["decoder"]["embedding"]
    return start_as_pooling(params["connector"], params["vision"], embedding, model.vision, model.connector, seed)


def start_as_pooling(
    connector: Params,
    vision: Params,
    embedding: Float[Array, "V D"],
    vision_config: ViTConfig,
    config: ResamplerConfig,
    seed: int,
) -> Params:
    """The connector's random parameters with attention and values of its first layer set; jittable, float32.

    embedding: the decoder's; vision tokens become TOKEN_SIZE times as large as a word's.

    Keys: a ridge regression from the tower's features to the cell that they come from, fitted on images of random
    rectangles, in the space orthogonal to the latents. Queries: the latents' pseudoinverse, so each asks for its cell.
    Values pass the first layer unchanged.

    Raises:
        ValueError: a head is too narrow to tell as many cells as there are queries.
    """
    queries, width, heads, head_width = config.queries, config.width, config.heads, config.head_width
    if queries > head_width or heads * head_width < width:
        raise ValueError(
            f"initialize.connector_start: pooling needs heads of at least {queries} (one number a query) and together "
            f"at least {width} (the tower's width); got {heads} of {head_width}. Leave it None."
        )
    # Features of random images, and the cell that each patch lies in.
    pixels = jnp.asarray(random_rectangles(np.random.default_rng(seed), vision_config.image_size_px))
    normalized = normalize_pixels(pixels, "float32", vision_config.pixel_mean, vision_config.pixel_std)
    features = _norm(ViT(vision_config, "float32").apply({"params": vision}, normalized))
    cells = jax.nn.one_hot(cell_of_patch(vision_config.grid, queries), queries)

    # Query weights turn latent q into the unit vector of cell q, key weights a patch into that of its cell.
    latents = _norm(connector["latents"])
    query = jnp.linalg.pinv(latents)  # [E, Q]: the latents times this are the identity
    blind = jnp.eye(width) - query @ latents
    inputs = (features @ blind).reshape(-1, width)
    target = jnp.tile(cells - cells.mean(0, keepdims=True), (len(features), 1))
    ridge = RIDGE * len(inputs) * jnp.eye(width)
    key = blind @ jnp.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ target)  # [E, Q]
    score = jnp.einsum("nPE,EQ->PQ", features, key) / len(features)
    # Scaled for each query alone: a tower may locate patches in the middle less well than at the border.
    inside = jnp.sum(score * cells, axis=0) / jnp.sum(cells, axis=0)
    outside = jnp.sum(score * (1 - cells), axis=0) / jnp.sum(1 - cells, axis=0)
    # Attention divides by sqrt(head_width); key and query each carry the root of the factor.
    size = math.sqrt(SHARPNESS) * head_width**0.25
    key = key / (inside - outside)[None] * size

    # The first layer attends and passes values on by an orthogonal map; later layers and feed-forward add little.
    layers = connector["layers"]
    to_q = layers["to_q"]["kernel"].at[..., :queries].set(size * query[:, None])
    to_kv = layers["to_kv"]["kernel"].at[:, :, 0, :, :queries].set(key[:, None])
    shape = (heads * head_width, width)
    values = jnp.linalg.qr(jax.random.normal(random_key(seed), shape))[0].reshape(heads, head_width, width)
    to_kv = to_kv.at[0, :, 1].set(values.transpose(2, 0, 1))
    to_out = layers["to_out"]["kernel"].at[0].set(values).at[1:].multiply(LATER_LAYERS)
    down = layers["ff2"]["kernel"] * LATER_LAYERS
    kernels = {"to_q": to_q, "to_kv": to_kv, "to_out": to_out, "ff2": down}
    layers = {**layers, **{name: {**layers[name], "kernel": kernel} for name, kernel in kernels.items()}}
    projection = connector["projection"]
    # Inputs of the projection are layer-normed, so their mean square is 1 and the weights give the outputs' size.
    output_size = jnp.sqrt(jnp.mean(jnp.sum(projection["kernel"] ** 2, axis=0) + projection["bias"] ** 2))
    factor = TOKEN_SIZE * jnp.std(embedding) / output_size
    return {
        **connector,
        "latents": connector["latents"] * LATENTS,
        "layers": layers,
        "projection": {name: leaf * factor for name, leaf in projection.items()},
    }


def _norm(x: Float[Array, "*n E"]) -> Float[Array, "*n E"]:
    """A layer norm as it is before training."""
    return jax.nn.standardize(x, epsilon=EPSILON)


def cell_of_patch(grid: int, queries: int) -> np.ndarray:
    """For each patch in raster order the query that reads it; the cells' grid is as square as `queries` allows.

    6 queries on a grid of 4 x 4: `0 0 1 2`, the same again, `3 3 4 5`, the same again.
    """
    rows = max(n for n in range(1, math.isqrt(queries) + 1) if queries % n == 0)
    columns = queries // rows
    y, x = np.divmod(np.arange(grid * grid), grid)
    return y * rows // grid * columns + x * columns // grid


def random_rectangles(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """uint8 [IMAGES, size, size, 3]: one to eight rectangles of any color on light grounds."""
    images = np.empty((IMAGES, size_px, size_px, 3), np.uint8)
    for image in images:
        image[:] = rng.integers(215, 256, 3)
        for _ in range(rng.integers(1, 9)):
            width, height = rng.integers(size_px // 16, size_px * 3 // 8, 2)
            left, top = rng.integers(0, size_px - size_px // 16, 2)
            image[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return images
