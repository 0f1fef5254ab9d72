"""Linear probes: how much of color, shape and place can be read off each layer by a linear map."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
import numpy as np
import PIL.Image

from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.data import anyres
from xgenmm_jax.data.records import Picture
from xgenmm_jax.models import probes
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.nano.world import draw, scenes
from xgenmm_jax.nano.world.splits import COLORS, PLACES, SHAPES
from xgenmm_jax.nano.world.world import Dice
from xgenmm_jax.probing.figures import curves, figure, to_picture

PROPERTIES = {"color": COLORS, "shape": SHAPES, "place": PLACES}
BATCH = 32
"""Pictures of a forward pass."""
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried, as parts of the mean eigenvalue; the best by leaving one picture out is taken."""


class Labeled(NamedTuple):
    """Pictures of one shape each, and the number of its color, shape and place in PROPERTIES."""

    pictures: list[Picture]
    labels: dict[str, Int[np.ndarray, " n"]]


class Probed(NamedTuple):
    """Part of held-back pictures that a linear probe names right, by property and layer."""

    layers: list[str]
    accuracy: dict[str, Float[np.ndarray, " layers"]]


def one_shape_pictures(count: int, seed: int = 0) -> Labeled:
    """Drawn by the embedded world, 64 x 64 pixels."""
    drawn = [scenes.one_shape(Dice(seed, "probe", number), "train") for number in range(count)]
    things = [scene.things[0] for scene in drawn]
    return Labeled(
        [draw.picture(scene) for scene in drawn],
        {
            "color": np.array([COLORS.index(thing.color) for thing in things]),
            "shape": np.array([SHAPES.index(thing.name) for thing in things]),
            "place": np.array([PLACES.index(thing.place) for thing in things]),
        },
    )


def layer_states(lmm: LMM, pictures: Sequence[Picture]) -> dict[str, Float[np.ndarray, "n w"]]:
    """For every layer of tower, resampler and decoder the mean state of a picture's global view.

    The mean over patches, queries or vision tokens: what is read from it stands in the states themselves, and not in
    which of them they are. "pixels" is the mean color, to compare with.
    """
    connector = probes.connector_name(lmm.config)
    inner = f"{connector}/layers"
    probe = ["vision", "vision/layers", connector, "decoder/layers", *({inner} & set(lmm.probe_names))]
    tokens = lmm.config.tokens_per_group
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(pictures), BATCH):
        some = list(pictures[start : start + BATCH])
        out = lmm.forward([[lmm.tokenizer.image_id]] * len(some), [[picture] for picture in some], probe=probe)
        colors = [np.asarray(picture.load(), np.float32).mean((0, 1), keepdims=True)[0] for picture in some]
        crops = _first_crops(lmm, some)
        groups = np.arange(len(some)) if lmm.config.token_sampling is TokenSampling.FIXED_SAMPLING else crops
        states = {"pixels": np.stack(colors), **_numbered("tower", out.probed["vision/layers"][:, crops])}
        states["tower end"] = out.probed["vision"][crops]
        if inner in out.probed:
            states |= _numbered(connector, out.probed[inner][:, groups])
        states[f"{connector} end"] = out.probed[connector][groups]
        states |= _numbered("decoder", out.probed["decoder/layers"][:, :, :tokens])
        for name, array in states.items():
            parts.setdefault(name, []).append(array.astype(np.float32).mean(1))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _numbered(name: str, layers: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name} {number}": layer for number, layer in enumerate(layers, start=1)}


def _first_crops(lmm: LMM, pictures: Sequence[Picture]) -> Int[np.ndarray, " n"]:
    """Where each picture's global view stands among all crops."""
    counts = [anyres.layout(picture.size_px, lmm.processor.anyres).crops for picture in pictures]
    return np.cumsum([0, *counts[:-1]])


def linear_probes(lmm: LMM, train: Labeled, test: Labeled) -> Probed:
    """A ridge classifier for each property and layer, fitted on `train`, its accuracy on `test`."""
    count = len(train.pictures)
    states = layer_states(lmm, [*train.pictures, *test.pictures])
    accuracy: dict[str, list[float]] = {name: [] for name in PROPERTIES}
    for array in states.values():
        mean, spread = array[:count].mean(0), array[:count].std(0) + 1e-6
        scaled = (array - mean) / spread
        for name in PROPERTIES:
            right = ridge_predictions(scaled[:count], train.labels[name], scaled[count:]) == test.labels[name]
            accuracy[name].append(float(right.mean()))
    return Probed(list(states), {name: np.array(line) for name, line in accuracy.items()})


def ridge_predictions(
    states: Float[np.ndarray, "n w"], labels: Int[np.ndarray, " n"], wanted: Float[np.ndarray, "m w"]
) -> Int[np.ndarray, " m"]:
    """Labels of `wanted` by least squares onto one-hot labels, the ridge chosen by leave-one-out on `states`."""
    classes = np.unique(labels)
    onehot = (labels[:, None] == classes).astype(np.float64)
    middle = onehot.mean(0)
    values, vectors = np.linalg.eigh((states @ states.T).astype(np.float64))
    rotated = vectors.T @ (onehot - middle)
    best_right, best_dual = -1.0, np.zeros_like(onehot)
    for ridge in RIDGES:
        inverse = 1 / (np.maximum(values, 0) + ridge * values.mean())
        dual = vectors @ (inverse[:, None] * rotated)
        # Leaving one out costs nothing here: its residual is its dual weight over the inverse's diagonal.
        residual = dual / np.einsum("ij,j,ij->i", vectors, inverse, vectors)[:, None]
        right = _is_right(onehot - residual, classes, labels).mean()
        if right > best_right:
            best_right, best_dual = right, dual
    return classes[((wanted @ states.T) @ best_dual + middle).argmax(1)]


def _is_right(
    scores: Float[np.ndarray, "n c"], classes: Int[np.ndarray, " c"], labels: Int[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    return classes[scores.argmax(1)] == labels


def probes_shown(probed: Probed | dict[str, Probed]) -> PIL.Image.Image:
    """Accuracy by layer: one line a property, or for several models one chart a property and one line a model."""
    if isinstance(probed, Probed):
        made, axes = figure(7.5, 3.2)
        curves(axes[0, 0], probed.accuracy, probed.layers, "linear probes on held-back pictures, % right", 1 / 8)
        return to_picture(made)
    made, axes = figure(10.5, 3.2, 1, len(PROPERTIES))
    for axis, (name, options) in zip(axes[0], PROPERTIES.items(), strict=True):
        lines = {model: one.accuracy[name] for model, one in probed.items()}
        layers = next(iter(probed.values())).layers
        curves(axis, lines, layers, f"{name}, % right", 1 / len(options))
    return to_picture(made)
