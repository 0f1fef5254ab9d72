"""A resampler that starts as pooling reads the image cell by cell."""

from dataclasses import replace
import functools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.nano import recipes
from xgenmm_jax.models.layers import normalize_pixels
from xgenmm_jax.models.resampler import Resampler
from xgenmm_jax.models.vit import ViT
from xgenmm_jax.nano.connector_start import TOKEN_SIZE, cell_of_patch, pooling_start, start_as_pooling
from xgenmm_jax.nano.starting_weights import WEIGHTS
from xgenmm_jax.nano.world import families
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.config import Initialize
from xgenmm_jax.training.runs.initialize import load_weights


@pytest.fixture(scope="module")
def started():
    """Tower features of real training images, the random connector, the started one."""
    model = recipes.model()
    tower = ViT(model.vision, "float32")
    init = functools.partial(tower.init, method=tower.features_and_pooled)
    abstract = unboxed(jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract)
    vision = load_weights(WEIGHTS / "nano_vision.safetensors", "vision", {"vision": abstract["params"]})["vision"]
    images = [families.record("caption", i, seed=3).image.load() for i in range(32)]
    pixels = jnp.asarray(np.stack([np.asarray(p.convert("RGB")) for p in images]))
    features = jax.jit(tower.apply)({"params": vision}, normalize_pixels(pixels))
    initialize = jax.jit(Resampler(model.connector).init)
    random = unboxed(initialize(jax.random.key(0), features, jnp.ones(features.shape[:2], bool)))
    start = jax.jit(functools.partial(start_as_pooling, vision_config=model.vision, config=model.connector, seed=0))
    words = WORD_SIZE * jax.random.normal(jax.random.key(1), (500, 128))
    return features, random["params"], start(random["params"], vision, words)


WORD_SIZE = 0.7


def attention(params, features) -> np.ndarray:
    """First layer's, mean over images and heads: [Q, P + Q]."""
    _, state = Resampler(recipes.model().connector).apply(
        {"params": params}, features, jnp.ones(features.shape[:2], bool), mutable=["attention"]
    )
    return np.asarray(jax.tree.leaves(state)[0])[0].mean((0, 1))


def test_queries_look_at_their_cells(started):
    features, random, params = started
    is_in_cell = cell_of_patch(8, 16)[None] == np.arange(16)[:, None]
    weights = attention(params, features)
    of_cells = weights[:, :64] @ np.stack([cell_of_patch(8, 16) == cell for cell in range(16)], 1)
    assert (of_cells.argmax(1) == np.arange(16)).all(), "every query looks at its own cell more than at any other"
    shares = np.diagonal(of_cells)
    assert shares.mean() > 0.6 and shares.min() > 0.35, "0.64 and 0.37 with the shipped tower"
    assert weights[:, 64:].sum(1).max() < 0.1, "queries look at each other"
    before = attention(random, features)
    assert (before[:, :64] * is_in_cell).sum(1).max() < 0.15, "as far from it as can be without"


def test_tokens_differ_by_image(started):
    features, random, params = started

    def share(params) -> float:
        """Of the tokens' variance, what is not the same for all images."""
        tokens = Resampler(recipes.model().connector).apply(
            {"params": params}, features, jnp.ones(features.shape[:2], bool)
        )
        return float(tokens.var(0).mean() / tokens.reshape(-1, tokens.shape[-1]).var(0).mean())

    assert share(params) > 0.5 > 0.1 > share(random)


def test_tokens_are_as_large_as_words_added(started):
    features, random, params = started
    seen = jnp.ones(features.shape[:2], bool)
    resampler = Resampler(recipes.model().connector)
    size, before = (float(resampler.apply({"params": p}, features, seen).std()) for p in (params, random))
    assert size == pytest.approx(TOKEN_SIZE * WORD_SIZE, rel=0.15)
    assert before < 0.7


def test_same_names_and_shapes(started):
    _, random, params = started
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, random)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))


def test_cells():
    assert cell_of_patch(4, 6).reshape(4, 4).tolist() == [[0, 0, 1, 2]] * 2 + [[3, 3, 4, 5]] * 2
    counts = np.bincount(cell_of_patch(27, 128))
    assert len(counts) == 128 and counts.min() > 0


def test_heads_too_narrow():
    model = recipes.model()
    narrow = replace(model.connector, queries=25)
    with pytest.raises(ValueError, match="at least 25"):
        start_as_pooling({}, {}, jnp.zeros((0, 128)), model.vision, narrow, 0)
    with pytest.raises(ValueError, match="leave it None"):
        Initialize(run="runs/a", connector_start=pooling_start)
