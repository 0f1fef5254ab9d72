import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models import blip3, sizes
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.ops.valid_only import CHUNKS, on_valid_crops


@pytest.mark.parametrize("valid", [0, 3, 8, 19])
def test_crops_that_exist_keep_their_place_and_only_their_chunks_are_computed(valid):
    """19 crops, of which some exist anywhere; a function that counts its calls on the host."""
    rng = np.random.default_rng(valid)
    crops = jnp.asarray(rng.normal(size=(19, 4)), jnp.float32)
    is_valid = np.zeros(19, bool)
    is_valid[rng.permutation(19)[:valid]] = True
    calls = []

    def function(x):
        jax.debug.callback(lambda: calls.append(1))
        return 2 * x[:, None]

    got = jax.jit(lambda crops, is_valid: on_valid_crops(function, crops, is_valid))(crops, jnp.asarray(is_valid))
    jax.effects_barrier()
    np.testing.assert_array_equal(got[is_valid], 2 * crops[is_valid][:, None])
    size = -(-19 // CHUNKS)
    assert got.shape == (19, 1, 4) and len(calls) == -(-valid // size)


@pytest.mark.slow
def test_a_towers_features_of_real_crops_are_those_of_all(monkeypatch):
    """On one GPU; two rows of five crops, of which three and one exist."""
    config = sizes.nano()
    small = blip3.smallest_batch(config)
    params = unboxed(blip3.initialize(config, jax.random.key(0)))
    crop_image = np.asarray([[0, 0, 1, -1, -1], [0, -1, -1, -1, -1]], np.int32)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 64, 64, 3), np.uint8)
    batch = small._replace(pixels=jnp.asarray(pixels), crop_image=jnp.asarray(crop_image))

    def features() -> np.ndarray:
        # A new function each time: jit knows nothing of the patch.
        return np.asarray(jax.jit(lambda: blip3.VLM(config).apply({"params": params}, batch, method="features"))())

    whole = features()
    monkeypatch.setattr(blip3, "on_one_gpu", lambda: True)
    got = features()
    valid = crop_image >= 0
    np.testing.assert_allclose(got[valid], whole[valid], rtol=0, atol=1e-5)
    assert not got[1, 1:].any()
