"""The GPU's decoding kernels, in Pallas' interpreter, against XLA; where they stand."""

from flax import linen as nn
from gpu_mesh import abstract_mesh
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models.kv_cache import empty_cache, unstack_layers
from xgenmm_jax.models.phi3 import Phi3, Phi3Config
from xgenmm_jax.ops import attention_decode, gemv
from xgenmm_jax.ops.attention_xla import xla_attention


@pytest.mark.parametrize("heads, kv_heads, width", [(4, 4, 96), (8, 2, 16)])
def test_one_query_a_row_equals_xla(heads, kv_heads, width):
    """Empty positions of the cache, anywhere; a row without visible keys is 0."""
    shapes = [(3, 1, heads, width), *[(3, 80, kv_heads, width)] * 2]
    seeds = jax.random.split(jax.random.key(0), 3)
    query, key, value = (jax.random.normal(seed, shape) for seed, shape in zip(seeds, shapes, strict=True))
    mask = np.random.default_rng(0).random((3, 1, 80)) < 0.6
    mask[2] = False
    got = attention_decode.decode_attention(query, key, value, jnp.asarray(mask), interpret=True)
    expected = xla_attention(query, key, value, jnp.asarray(mask), False)
    np.testing.assert_allclose(got[:2], expected[:2], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(got[2], 0)


def test_what_the_kernel_cannot_take_is_told():
    assert attention_decode.is_possible(1, 256) and attention_decode.is_possible(4, 1296)
    assert not attention_decode.is_possible(3, 256)
    assert not attention_decode.is_possible(1, 250)


def test_a_vector_times_a_matrix_and_its_gradient():
    vector, matrix = jax.random.normal(jax.random.key(0), (1024,)), jax.random.normal(jax.random.key(1), (1024, 128))
    np.testing.assert_allclose(gemv.gemv(vector, matrix, True), vector @ matrix, rtol=0, atol=1e-4)
    got = jax.grad(lambda *x: jnp.sum(gemv.gemv(*x, True) ** 2), argnums=(0, 1))(vector, matrix)
    expected = jax.grad(lambda vector, matrix: jnp.sum((vector @ matrix) ** 2), argnums=(0, 1))(vector, matrix)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-2), got, expected)


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("rows", [1, 2])
def test_a_decoding_step_for_a_gpu_that_is_not_there(rows):
    """One row goes through both kernels, more rows through XLA's products; elsewhere neither stands in the program."""
    config = Phi3Config(vocab_size=1024, num_text_tokens=1000, width=512, hidden=1024, layers=2, heads=8, kv_heads=4)
    decoder, ids = Phi3(config, "bfloat16"), jnp.zeros((rows, 1), jnp.int32)
    params = jax.eval_shape(decoder.init, jax.random.key(0), ids, ids, ids)["params"]
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), nn.unbox(params))
    cache = jax.eval_shape(lambda: empty_cache(config, rows, 64, "bfloat16"))

    def step(params, cache):
        layers, cache = unstack_layers(params, cache)
        embeddings = jnp.ones((rows, 1, config.width), jnp.bfloat16)
        variables = {"params": params}
        hidden, _ = decoder.apply(variables, embeddings, ids + 1, ids, cache, 3, layers, method="extend")
        return decoder.apply(variables, hidden[:, 0], method="logits")

    with jax.sharding.use_abstract_mesh(abstract_mesh("gpu", "NVIDIA H100 80GB HBM3")):
        text = jax.jit(step).trace(params, cache).lower(lowering_platforms=("cuda",)).as_text()
    # Four maps a layer, of one shape once, and the head.
    # A function that the other kernel shares may name the file in which it was traced first.
    assert ("gemv" in text.replace("gemv.py", "")) == (rows == 1)
    assert "decode_attention" in text
    text = jax.jit(step).lower(params, cache).as_text()
    assert "gemv" not in text and "decode_attention" not in text
