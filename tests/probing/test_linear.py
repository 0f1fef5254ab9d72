"""Linear probes, of states that are known and of a user's images."""

import importlib

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.probing import figures, labeled_images, linear


def test_ridge_reads_what_is_linear_and_nothing_else():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(300, 40)).astype(np.float32)
    labels = (states @ rng.normal(size=(40, 5))).argmax(1)
    linear_right = (linear.ridge_predictions(states[:200], labels[:200], states[200:]) == labels[200:]).mean()
    noise = rng.integers(0, 5, 300)
    noise_right = (linear.ridge_predictions(states[:200], noise[:200], states[200:]) == noise[200:]).mean()
    assert linear_right > 0.7 and noise_right < 0.4


def test_the_baseline_is_the_commonest_training_label():
    """Three of four test images have the label that two of three training images have."""
    labels = np.array(["cat", "cat", "dog", "cat", "cat", "cat", "dog"])
    states = {"layer": np.eye(7, dtype=np.float32), "other": np.ones((7, 2), np.float32)}
    probe = linear.probe_states(states, labels, 3)
    assert probe.baseline == 0.75 and probe.layers == ["layer", "other"]
    assert probe.accuracy[1] == 0.75, "of states that are all equal nothing can be read"


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A folder of red and blue images, of several sizes and modes."""
    folder = tmp_path_factory.mktemp("birds")
    rng = np.random.default_rng(0)
    for label, color in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (folder / label).mkdir()
        for number in range(12):
            noise = rng.integers(-25, 25, (40 + number, 50, 3))
            pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
            suffix = ("png", "jpg", "webp")[number % 3]
            PIL.Image.fromarray(pixels).save(folder / label / f"{number}.{suffix}")
    return labeled_images.read_labeled(folder)


def test_a_users_folder_is_probed_at_chosen_layers(lmm, birds):
    train, test = labeled_images.split(birds)
    probe = linear.linear_probe(lmm, train, test, ["decoder 1", "pixels", "tower end"])
    assert probe.layers == ["decoder 1", "pixels", "tower end"] and probe.baseline == 0.5
    assert (probe.accuracy == 1).all(), "colors are linear in every layer"
    shown = linear.probes_shown({"birds, % right": {"start": probe}})
    assert min(shown.size) > 60


def test_all_layers_come_in_the_order_of_computation(lmm, birds):
    states = linear.layer_states(lmm, birds.images[:3])
    assert tuple(states) == linear.layer_names(lmm)
    assert all(len(array) == 3 for array in states.values())
    one = linear.layer_states(lmm, birds.images[:3], ["decoder 2"])
    np.testing.assert_allclose(one["decoder 2"], states["decoder 2"], rtol=1e-5, atol=1e-5)


def test_an_unknown_layer_is_refused_with_the_nearest_name(lmm, birds):
    with pytest.raises(ValueError, match="no layer 'decoder1'; did you mean decoder 1?"):
        linear.layer_states(lmm, birds.images[:1], ["decoder1"])


def test_a_label_without_training_images_is_refused(lmm, birds):
    other = birds._replace(labels=["green"] * len(birds.labels))
    with pytest.raises(ValueError, match="label 'green' of a test image has no training image"):
        linear.linear_probe(lmm, birds, other)


STATES, LABELS = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
CHARTS = {"title": {"line": linear.LinearProbe(["layer"], np.ones(1), 0.5)}}


@pytest.mark.parametrize(
    "library, use",
    [
        ("sklearn", lambda: linear.ridge_predictions(STATES, LABELS, STATES)),
        ("matplotlib", lambda: linear.probes_shown(CHARTS)),
    ],
)
def test_a_missing_library_is_named_with_its_extra(library, use, monkeypatch):
    def without(name):
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named '{library}'", name=library)
        return import_module(name)

    import_module = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ValueError, match=rf"{library} is missing; `pip install xgenmm_jax\[probing\]`"):
        use()


def test_every_line_of_a_chart_is_drawn():
    """The fifth of five models was left out, for want of a fifth color."""
    _, axes = figures.figure(4.0, 3.0)
    figures.curves(axes[0, 0], {str(n): [0.1 * n, 0.5] for n in range(6)}, ["a", "b"], "", [0.1 * n for n in range(6)])
    assert len(axes[0, 0].lines) == 12
