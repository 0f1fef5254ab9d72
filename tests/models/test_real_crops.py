import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models.real_crops import CHUNKS, on_real_crops


@pytest.mark.parametrize("real", [0, 3, 8, 19])
def test_crops_that_exist_keep_their_place_and_only_their_chunks_are_computed(real):
    """19 crops, of which some exist anywhere; a function that counts its calls on the host."""
    rng = np.random.default_rng(real)
    crops = jnp.asarray(rng.normal(size=(19, 4)), jnp.float32)
    is_real = np.zeros(19, bool)
    is_real[rng.permutation(19)[:real]] = True
    calls = []

    def function(x):
        jax.debug.callback(lambda: calls.append(1))
        return 2 * x[:, None]

    got = jax.jit(lambda crops, is_real: on_real_crops(function, crops, is_real))(crops, jnp.asarray(is_real))
    jax.effects_barrier()
    np.testing.assert_array_equal(got[is_real], 2 * crops[is_real][:, None])
    size = -(-19 // CHUNKS)
    assert got.shape == (19, 1, 4) and len(calls) == -(-real // size)
