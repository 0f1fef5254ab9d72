import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import random_parameters

from xgenmm_jax.models.layers import normalize_pixels
from xgenmm_jax.models.vit import ViT, ViTConfig

CONFIG = ViTConfig(image_size_px=15, patch_px=7, width=12, hidden=16, layers=2, heads=3)


def test_patches_are_a_valid_convolution():
    """15 px hold two patches of 7: the last pixel is ignored, as the official stride-14 convolution ignores six."""
    pixels = jax.random.normal(jax.random.key(0), (2, 15, 15, 3))
    model = ViT(CONFIG)
    params = random_parameters(model.init, pixels, method="features_and_pooled")
    kernel, bias = (params["params"]["patch_embedding"][name] for name in ("kernel", "bias"))
    assert kernel.shape == (7, 7, 3, 12)
    expected = jax.lax.conv_general_dilated(
        pixels, kernel, (7, 7), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(2, 4, 12) + bias.reshape(1, 1, 12)

    def patches(model, pixels):
        whole = pixels[:, :14, :14].reshape(2, 2, 7, 2, 7, 3).swapaxes(2, 3)
        return model.patch_embedding(whole.reshape(2, 4, 7, 7, 3))

    np.testing.assert_allclose(model.apply(params, pixels, method=patches), expected, rtol=0, atol=1e-5)
    edge = pixels.at[:, 14:].set(9.0).at[:, :, 14:].set(-9.0)
    apply = jax.jit(model.apply)
    np.testing.assert_array_equal(apply(params, pixels), apply(params, edge))


def test_shapes_and_wrong_size():
    pixels = jnp.zeros((2, 15, 15, 3))
    model = ViT(CONFIG)
    params = random_parameters(model.init, pixels, method="features_and_pooled")
    features, pooled = model.apply(params, pixels, method="features_and_pooled")
    assert features.shape == (2, 4, 12) and pooled.shape == (2, 12)
    with pytest.raises(ValueError, match="got 16 x 16 px, the tower wants 15"):
        model.apply(params, jnp.zeros((2, 16, 16, 3)))


def test_bytes_become_minus_one_to_one():
    values = normalize_pixels(jnp.asarray([0, 51, 255], jnp.uint8).reshape(1, 1, 1, 3))
    np.testing.assert_allclose(values.reshape(-1), [-1, -0.6, 1], rtol=0, atol=1e-6)
