"""big_vision's own ViT as SigLIP configures it, at random weights: saved by its names, imported, the same features.

Needs a checkout of github.com/google-research/big_vision: BIG_VISION=PATH pytest -m parity tests/models
"""

import importlib.util
import os
from pathlib import Path
import sys
import types

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from released_parameters import read_tree

from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.models.vit import ViT

# Its source calls flax in ways that later versions warn of.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def big_vision_vit():
    """The module `big_vision.models.vit`, loaded from the file alone.

    It also imports big_vision's `utils` (TensorFlow, ml_collections) and `common`, which only its `load` uses, to read
    checkpoints from buckets: two empty modules stand for them.
    """
    checkout = os.environ.get("BIG_VISION")
    if not checkout:
        pytest.skip("BIG_VISION is not set; set it to a checkout of github.com/google-research/big_vision.")
    path = Path(checkout) / "big_vision" / "models" / "vit.py"
    if not path.is_file():
        pytest.fail(f"BIG_VISION={checkout}: no file '{path}'; give the folder that holds README.md and big_vision/.")
    package, models = types.ModuleType("big_vision"), types.ModuleType("big_vision.models")
    package.utils, models.common = types.ModuleType("big_vision.utils"), types.ModuleType("big_vision.models.common")
    spec = importlib.util.spec_from_file_location("big_vision.models.vit", path)
    module = importlib.util.module_from_spec(spec)
    stubs = (package, package.utils, models, models.common)
    with pytest.MonkeyPatch.context() as patch:
        for stub in stubs:
            patch.setitem(sys.modules, stub.__name__, stub)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize(("image_px", "patch_px"), [(32, 8), (384, 14)], ids=["4x4", "27x27_of_384"])
def test_features_and_pooled_are_those_of_big_vision(big_vision_vit, tmp_path, scan, image_px, patch_px):
    """384 px are 27 patches of 14 and 6 pixels that no patch covers: neither tower reads them."""
    tower = big_vision_vit.Model(
        patch_size=(patch_px, patch_px), width=24, depth=3, mlp_dim=40, num_heads=4, pool_type="map", scan=scan
    )
    rng = np.random.default_rng(image_px + scan)
    pixels = rng.standard_normal((2, image_px, image_px, 3), np.float32)

    # Biases and norms too, which the tower starts at zero and one.
    names = flax.traverse_util.flatten_dict(
        jax.eval_shape(tower.init, jax.random.key(0), jnp.asarray(pixels))["params"], sep="/"
    )
    arrays = {name: random_array(rng, name, leaf.shape) for name, leaf in names.items()}
    params = flax.traverse_util.unflatten_dict(arrays, sep="/")
    with jax.default_matmul_precision("highest"):
        expected_pooled, out = jax.jit(lambda params, pixels: tower.apply({"params": params}, pixels))(params, pixels)

    # A checkpoint of SigLIP's training holds both towers' parameters; the image tower's lie under img/.
    np.savez(tmp_path / "siglip.npz", **{f"params/img/{name}": array for name, array in arrays.items()})
    with open_source(tmp_path / "siglip.npz") as source:
        imported, config = read_tree(source)["vision"], source.config
    assert (config.image_size_px, config.patch_px, config.heads, config.layers) == (image_px, patch_px, 4, 3)
    ours = ViT(config)
    with jax.default_matmul_precision("highest"):
        features, pooled = jax.jit(
            lambda params, pixels: ours.apply({"params": params}, pixels, method="features_and_pooled")
        )(imported, pixels)
    expected_features = out["encoded"]
    assert features.dtype == expected_features.dtype == jnp.float32
    np.testing.assert_allclose(features, expected_features, **TOLERANCE)
    np.testing.assert_allclose(pooled, expected_pooled, **TOLERANCE)
    assert np.std(expected_features) > 0.1 and np.std(expected_pooled) > 0.1


def random_array(rng, name, shape):
    """Of a parameter: scales around one; other values such that outputs are of the order of one."""
    values = rng.standard_normal(shape, np.float32)
    kind = name.split("/")[-1]
    if kind == "scale":
        return 1 + 0.3 * values
    if kind == "bias":
        return 0.3 * values
    return values * np.float32(0.2)
