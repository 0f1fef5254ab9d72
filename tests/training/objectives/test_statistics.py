"""Mean and standard deviation by channel of what is drawn."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.models import drawing_features
from xgenmm_jax.training.objectives import drawing_rows
from xgenmm_jax.training.objectives.drawing_rows import with_statistics

SIDE_PX = 4


def batches(is_target) -> Iterator[DrawingBatch]:
    """Endless random images, at the places that are True."""
    rng = np.random.default_rng(0)
    rows, places = np.shape(is_target)
    empty = DrawingBatch.around(Batch.empty(rows, 8, 1, 1, 4, 0), places, SIDE_PX)
    while True:
        pixels = rng.integers(0, 256, empty.target_pixels.shape, np.uint8)
        one = empty._replace(target_pixels=pixels, target_segment=np.asarray(is_target, np.int32))
        yield jax.tree.map(jnp.asarray, one)


def features(params, pixels):
    """A channel that never changes, one that is large and changes little, and one as pixels are."""
    red = pixels[..., :1].astype(jnp.float32) / 255
    return jnp.concatenate([jnp.full_like(red, 5.3), 1000 + red, red], axis=-1)


def unknown() -> dict:
    return {"target": {name: jnp.zeros(3) for name in ("mean", "std")}}


def test_they_are_those_of_the_images_alone(monkeypatch):
    """Of a channel of 1000 and more the mean of squares less the squared mean had no digits, in float32."""
    monkeypatch.setattr(drawing_rows, "STATISTICS_IMAGES", 12)
    is_target = [[True, False], [True, True]]
    known = with_statistics(unknown(), "target", features, batches(is_target))["target"]
    stream = batches(is_target)
    images = np.concatenate([np.asarray(next(stream).target_pixels)[np.array(is_target)] for _ in range(4)])
    red = images[..., 0].astype(np.float64) / 255
    np.testing.assert_allclose(known["mean"], [5.3, 1000 + red.mean(), red.mean()], rtol=1e-6)
    np.testing.assert_allclose(known["std"][1], red.std(), rtol=2e-4)  # float32 of 1000 and more has steps of 6e-5
    np.testing.assert_allclose(known["std"][2], red.std(), rtol=1e-6)
    # A channel that never changes is not divided by what rounding made of it.
    assert known["std"][0] == 1


def test_data_without_images_to_draw_are_told(monkeypatch):
    """A run waited for one without an end."""
    monkeypatch.setattr(drawing_rows, "WITHOUT_IMAGES", 3)
    with pytest.raises(ValueError, match="3 batches in a row have no image to draw"):
        with_statistics(unknown(), "target", features, batches([[False, False]]))


def test_they_are_not_learned():
    """With a larger std every loss on features is smaller: a run that does not freeze them learned it."""

    def loss(part: dict) -> jax.Array:
        return jnp.sum(jnp.square(drawing_features.scaled(part, jnp.ones((1, 2, 2, 3)))))

    gradient = jax.grad(loss)({"mean": jnp.full(3, 0.1), "std": jnp.full(3, 0.5)})
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
