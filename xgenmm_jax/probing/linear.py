"""Linear probes: how well a linear classifier names the labels of images from the states of each layer."""

from collections.abc import Mapping, Sequence
import difflib
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np
import PIL.Image

from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.processor import Image
from xgenmm_jax.data import anyres
from xgenmm_jax.data.records import Crops, LazyImage
from xgenmm_jax.models import probes
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.probing.attention_maps import decoded
from xgenmm_jax.probing.extra import import_extra
from xgenmm_jax.probing.figures import curves, figure, to_image
from xgenmm_jax.probing.labeled_images import LabeledImages

BATCH = 32
"""Images of a forward pass."""
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried, as parts of the states' mean squared length; the best by leaving one image out is taken."""
PIXELS = "pixels"
"""Name of a layer that is none: the image's mean color, to compare with."""


class LinearProbe(NamedTuple):
    """Part of the test images whose label is named right, by layer."""

    layers: list[str]
    accuracy: Float[np.ndarray, " layers"]
    baseline: float
    """Of always answering the training images' commonest label."""


def linear_probe(
    lmm: LMM, train: LabeledImages, test: LabeledImages, layers: Sequence[str] | None = None
) -> LinearProbe:
    """A classifier for each layer, fitted on `train`, its accuracy on `test` (`labeled_images.split` gives both).

    layers: of `layer_names`; all by default. Raises ValueError where one is unknown, a file is no image, or a label of
    `test` has no image in `train`.
    """
    known = set(train.labels)
    unseen = next((label for label in test.labels if label not in known), None)
    if unseen is not None:
        raise ValueError(f"linear probe: label '{unseen}' of a test image has no training image; give one of each.")
    states = layer_states(lmm, [*train.images, *test.images], layers)
    return probe_states(states, np.array([*train.labels, *test.labels]), len(train.images))


def layer_names(lmm: LMM) -> tuple[str, ...]:
    """What `layer_states` gives, in the order of computation: "pixels", "tower 1", ..., "decoder 4"."""
    return tuple(_layer_sources(lmm))


def layer_states(
    lmm: LMM, images: Sequence[Image], layers: Sequence[str] | None = None
) -> dict[str, Float[np.ndarray, "n w"]]:
    """For layers of tower, connector and decoder the mean state of each image's global view.

    The mean over patches, queries or vision tokens: what is read from it stands in the states themselves, and not in
    which of them they are.

    layers: of `layer_names`; all by default.
    """
    sources = _checked_layers(_layer_sources(lmm), layers)
    probe = sorted({part for part, _ in sources.values() if part != PIXELS})
    tokens = lmm.config.tokens_per_group
    parts: dict[str, list[np.ndarray]] = {name: [] for name in sources}
    for start in range(0, len(images), BATCH):
        batch = [lmm.processor.image(image) for image in images[start : start + BATCH]]
        out = lmm.forward([[lmm.tokenizer.image_id]] * len(batch), [[image] for image in batch], probe=probe)
        crops = _first_crops(lmm, batch)
        groups = np.arange(len(batch)) if lmm.config.token_sampling is TokenSampling.FIXED_SAMPLING else crops
        for name, (part, layer) in sources.items():
            if part == PIXELS:
                parts[name].append(np.stack([_mean_color(lmm, image) for image in batch]))
                continue
            states = out.probed[part] if layer is None else out.probed[part][layer]
            # Rows of the decoder begin with the vision tokens; of crops and groups the first is the global view's.
            if part.startswith("decoder"):
                states = states[:, :tokens]
            else:
                states = states[crops if part.startswith("vision") else groups]
            parts[name].append(states.astype(np.float32).mean(1))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _layer_sources(lmm: LMM) -> dict[str, tuple[str, int | None]]:
    """Layer -> the intermediate that holds its states (`models.probes`), and its number there."""
    connector = probes.connector_name(lmm.config)
    sources: dict[str, tuple[str, int | None]] = {PIXELS: (PIXELS, None)}
    sources |= {f"tower {n + 1}": ("vision/layers", n) for n in range(lmm.config.vision.layers)}
    sources["tower end"] = ("vision", None)
    if f"{connector}/layers" in lmm.probe_names:
        # The scan of a Q-Former gives one entry for every layer that reads the image and those behind it.
        layers = lmm.config.connector.layers // getattr(lmm.config.connector, "cross_every", 1)
        sources |= {f"{connector} {n + 1}": (f"{connector}/layers", n) for n in range(layers)}
    sources[f"{connector} end"] = (connector, None)
    return sources | {f"decoder {n + 1}": ("decoder/layers", n) for n in range(lmm.config.decoder.layers)}


def _checked_layers(
    sources: dict[str, tuple[str, int | None]], layers: Sequence[str] | None
) -> dict[str, tuple[str, int | None]]:
    """Those of `layers`. Raises ValueError where one is unknown."""
    if isinstance(layers, str):
        layers = [layers]
    for name in layers or ():
        if name not in sources:
            near = difflib.get_close_matches(name, sources, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"linear probe: no layer '{name}'; {hint}Known are {', '.join(sources)}.")
    return sources if layers is None else {name: sources[name] for name in layers}


def _mean_color(lmm: LMM, image: LazyImage | Crops) -> Float[np.ndarray, " 3"]:
    return np.asarray(decoded(lmm, image).load(), np.float32).mean((0, 1))


def _first_crops(lmm: LMM, images: Sequence[LazyImage | Crops]) -> Int[np.ndarray, " n"]:
    """Index of each image's global view among all crops."""
    counts = [anyres.layout(image.size_px, lmm.processor.anyres).crops for image in images]
    return np.cumsum([0, *counts[:-1]])


def probe_states(
    states: Mapping[str, Float[np.ndarray, "n w"]], labels: np.ndarray, train_count: int
) -> LinearProbe:
    """A classifier for each layer, fitted on the first `train_count` rows, its accuracy on the others."""
    train_labels, test_labels = labels[:train_count], labels[train_count:]
    right = [
        np.mean(ridge_predictions(array[:train_count], train_labels, array[train_count:]) == test_labels)
        for array in states.values()
    ]
    values, counts = np.unique(train_labels, return_counts=True)
    baseline = float(np.mean(test_labels == values[counts.argmax()]))
    return LinearProbe(list(states), np.array(right, np.float64), baseline)


def ridge_predictions(
    train: Float[np.ndarray, "n w"], labels: np.ndarray, test: Float[np.ndarray, "m w"]
) -> np.ndarray:
    """Labels of `test` by scikit-learn's ridge classifier, its strength chosen by leaving one row of `train` out."""
    linear_model, preprocessing = import_extra("sklearn.linear_model"), import_extra("sklearn.preprocessing")
    scaler = preprocessing.StandardScaler().fit(train.astype(np.float64))
    scaled = scaler.transform(train.astype(np.float64))
    alphas = np.array(RIDGES) * max(float(np.square(scaled).sum(1).mean()), 1e-12)
    classifier = linear_model.RidgeClassifierCV(alphas, scoring="accuracy").fit(scaled, labels)
    return classifier.predict(scaler.transform(test.astype(np.float64)))


def probes_shown(charts: Mapping[str, Mapping[str, LinearProbe]]) -> PIL.Image.Image:
    """Accuracy by layer, a chart for each title and in it a line for each name; dotted: the commonest label.

    `{"birds, % right": {"stage1": before, "sft": after}}` compares two models in one chart.
    """
    drawn, axes = figure(7.5 if len(charts) == 1 else 3.5 * len(charts), 3.2, 1, len(charts))
    for axis, (title, named) in zip(axes[0], charts.items(), strict=True):
        lines = {name: probe.accuracy for name, probe in named.items()}
        curves(axis, lines, next(iter(named.values())).layers, title, [probe.baseline for probe in named.values()])
    return to_image(drawn)
