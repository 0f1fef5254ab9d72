"""Towers of other code bases, imported from their files as they are, give their features."""

from checkpoints_made import GOLDENS
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from released_parameters import read_tree

from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.tensor_shapes import Overrides
from xgenmm_jax.models.layers import normalize_pixels
from xgenmm_jax.models.vit import ViT

TOLERANCE = {"rtol": 0, "atol": 2e-5}
BIG_VISION = GOLDENS / "big_vision_scanned"
OPEN_CLIP = GOLDENS / "open_clip_vit"
FOUR_HEADS = Overrides(vision_heads=4)
"""A released ViT-H/14 is known by its width; the golden's 48 is nobody's."""


def outputs(path, pixels, overrides):
    with open_source(path, overrides) as source:
        params, config = read_tree(source)["vision"], source.config
    apply = jax.jit(lambda params, pixels: ViT(config).apply({"params": params}, pixels, method="features_and_pooled"))
    return apply(params, jnp.asarray(pixels))


def golden(folder):
    with np.load(folder / "outputs.npz") as file:
        return dict(file)


def test_big_vision_features_and_pooled():
    expected = golden(BIG_VISION)
    features, pooled = outputs(BIG_VISION / "siglip.npz", expected["pixels"], Overrides())
    np.testing.assert_allclose(features, expected["features"], **TOLERANCE)
    np.testing.assert_allclose(pooled, expected["pooled"], **TOLERANCE)


@pytest.mark.parametrize("root", ["img/", "params/", ""])
def test_big_vision_layers_one_by_one_are_the_scanned_ones(tmp_path, root):
    """Checkpoints of un-scanned training, and of a tower alone, name the same numbers otherwise."""
    with np.load(BIG_VISION / "siglip.npz") as file:
        arrays = dict(file)
    scanned, unrolled = "params/img/Transformer/encoderblock/", {}
    for name, array in arrays.items():
        if name.startswith(scanned):
            for layer, one in enumerate(array):
                unrolled[f"{root}Transformer/encoderblock_{layer}/{name.removeprefix(scanned)}"] = one
        elif name.startswith("params/img/"):
            unrolled[name.replace("params/img/", root)] = array
    np.savez(tmp_path / "unrolled.npz", **unrolled)
    with open_source(BIG_VISION / "siglip.npz") as one, open_source(tmp_path / "unrolled.npz") as other:
        assert one.config == other.config
        jax.tree.map(np.testing.assert_array_equal, read_tree(one), read_tree(other))


def test_big_vision_bfloat16(tmp_path):
    """numpy writes bfloat16 as two raw bytes."""
    with np.load(BIG_VISION / "siglip.npz") as file:
        arrays = {name: array.astype(ml_dtypes.bfloat16) for name, array in file.items()}
    np.savez(tmp_path / "half.npz", **arrays)
    with open_source(tmp_path / "half.npz") as source:
        probe = read_tree(source)["vision"]["head"]["probe"]
    assert probe.dtype == np.float32
    np.testing.assert_array_equal(probe, arrays["params/img/MAPHead_0/probe"][0].astype(np.float32))


def test_open_clip_tokens_and_pooled():
    """Class token, norm before the layers, quick GELU, projection."""
    expected = golden(OPEN_CLIP)
    tokens, pooled = outputs(OPEN_CLIP, expected["pixels"].transpose(0, 2, 3, 1), FOUR_HEADS)
    np.testing.assert_allclose(tokens, expected["tokens"], **TOLERANCE)
    np.testing.assert_allclose(pooled, expected["pooled"], **TOLERANCE)


def test_open_clip_settings_name_the_activation(tmp_path):
    file = tmp_path / "open_clip_model.safetensors"
    file.write_bytes((OPEN_CLIP / "open_clip_model.safetensors").read_bytes())
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": {"head_width": 12}}}')
    with open_source(tmp_path) as source:
        assert source.config.activation == "gelu" and source.config.heads == 4
    with open_source(tmp_path, Overrides(activation="quick_gelu")) as source:
        assert source.config.activation == "quick_gelu"


def test_unknown_number_of_heads_is_an_error_that_says_how_to_give_it():
    with pytest.raises(ValueError, match="48 is no released width.*--vision-heads"):
        open_source(OPEN_CLIP)


def test_clip_pixels_are_normalised_with_its_mean_and_deviation():
    with open_source(OPEN_CLIP, FOUR_HEADS) as source:
        config = source.config
    values = normalize_pixels(jnp.full((1, 1, 3), 51, jnp.uint8), "float32", config.pixel_mean, config.pixel_std)
    expected = (0.2 - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array([0.26862954, 0.26130258, 0.27577711])
    np.testing.assert_allclose(values[0, 0], expected, rtol=0, atol=1e-6)
