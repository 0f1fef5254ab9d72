"""Linear probes for what the drawn world knows of its images: color, shape and position of one shape."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Int
import numpy as np

from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.nano.world import draw, scenes
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES
from xgenmm_jax.nano.world.world import KeyedRandom
from xgenmm_jax.probing.linear import LinearProbe, layer_states, probe_states

PROPERTIES = {"color": COLORS, "shape": SHAPES, "place": POSITIONS}


class OneShapeImages(NamedTuple):
    """Images of one shape each, and the number of its color, shape and position in PROPERTIES."""

    images: list[LazyImage]
    labels: dict[str, Int[np.ndarray, " n"]]


def one_shape_images(count: int, seed: int = 0) -> OneShapeImages:
    """Drawn by the embedded world, 64 x 64 pixels."""
    drawn = [scenes.one_shape(KeyedRandom(seed, "probe", number), "train") for number in range(count)]
    things = [scene.things[0] for scene in drawn]
    return OneShapeImages(
        [draw.lazy_image(scene) for scene in drawn],
        {
            "color": np.array([COLORS.index(thing.color) for thing in things]),
            "shape": np.array([SHAPES.index(thing.name) for thing in things]),
            "place": np.array([POSITIONS.index(thing.position) for thing in things]),
        },
    )


def property_probes(lmm: LMM, train: OneShapeImages, test: OneShapeImages) -> dict[str, LinearProbe]:
    """A probe for each property, from one pass over the images."""
    states = layer_states(lmm, [*train.images, *test.images])
    count = len(train.images)
    return {
        name: probe_states(states, np.concatenate([train.labels[name], test.labels[name]]), count)
        for name in PROPERTIES
    }


def by_property(models: Mapping[str, Mapping[str, LinearProbe]]) -> dict[str, dict[str, LinearProbe]]:
    """`property_probes` of several models as `linear.probes_shown` takes them: a chart for each property."""
    return {f"{name}, % right": {model: probes[name] for model, probes in models.items()} for name in PROPERTIES}
