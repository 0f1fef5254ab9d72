"""The models' parts compiled for a TPU that is not there, by libtpu on a CPU (extra `plan`)."""

from dataclasses import replace
import os

import jax
import jax.numpy as jnp
import pytest

from xgenmm_jax.models.phi3 import Phi3, Phi3Config
from xgenmm_jax.models.resampler import Resampler, ResamplerConfig
from xgenmm_jax.models.vit import ViT, ViTConfig
from xgenmm_jax.ops.attention_choice import is_long
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.sharding import MeshConfig, axis_rules, make_mesh, param_shardings, row_sharding

pytestmark = pytest.mark.slow

DECODER = Phi3Config(
    vocab_size=256,
    num_text_tokens=250,
    width=384,
    hidden=512,
    layers=10,
    heads=4,
    kv_heads=2,
    remat="minimal_with_context",
)
"""Head width 96, grouped queries, a scanned loop, windows shorter than the row."""
LENGTH = 4096
LENGTH_WITH_SCORES = LENGTH - 128
"""XLA computes rows of LENGTH block by block, which saves as much; these it does not."""


@pytest.fixture(scope="module")
def mesh():
    """Four v5e chips: rows over two, heads over two."""
    pytest.importorskip("libtpu", reason="pip install -e .[plan]")
    # Two programs with libtpu at once otherwise stop over its lock file.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    from jax.experimental.topologies import get_topology_desc

    jax.devices()  # reads XLA_FLAGS for jaxlib
    with pytest.MonkeyPatch.context() as patch:
        # libtpu reads it when it first compiles, and ends the process over a flag that it does not know.
        patch.delenv("XLA_FLAGS")
        devices = get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
        yield make_mesh(MeshConfig(fsdp=2, tensor=2), devices)


def compiled_gradient(mesh, model, inputs):
    """The gradient of a part's parameters, compiled for the mesh's devices."""
    boxed = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    put = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    params = jax.tree.map(put, unboxed(boxed), param_shardings(mesh, boxed))
    inputs = [put(leaf, row_sharding(mesh)) for leaf in inputs]

    def loss(params, *inputs):
        with axis_rules():
            return jnp.square(model.apply(params, *inputs).astype(jnp.float32)).mean()

    with jax.set_mesh(mesh):
        return jax.jit(jax.grad(loss)).lower(params, *inputs).compile()


def rows(length=LENGTH):
    row = jax.ShapeDtypeStruct((2, length), jnp.int32)
    return [row, row, row]


def test_the_decoder_takes_splash_on_a_tpu_and_xla_makes_scores(mesh):
    """Chosen from the mesh while the process's default is a CPU; what it saves is the point of it."""
    assert is_long(LENGTH) and not is_long(LENGTH_WITH_SCORES)
    compiled = {
        name: compiled_gradient(mesh, Phi3(replace(DECODER, attention=name), "bfloat16"), rows(LENGTH_WITH_SCORES))
        for name in ("auto", "xla")
    }
    assert "splash_mha" in compiled["auto"].as_text() and "splash_mha" not in compiled["xla"].as_text()
    memory = {name: one.memory_analysis().temp_size_in_bytes for name, one in compiled.items()}
    assert memory["auto"] < 0.5 * memory["xla"], memory


def test_the_tower_and_the_resampler_take_splash_on_a_tpu(mesh):
    """729 patches and head width 72, no multiples of anything; 128 queries on 857 keys, some of them hidden."""
    tower = ViT(ViTConfig(width=144, hidden=256, layers=1, heads=2), "bfloat16")
    pixels = jax.ShapeDtypeStruct((2, 384, 384, 3), jnp.bfloat16)
    resampler = Resampler(ResamplerConfig(width=144, layers=1, heads=2, hidden=256, out_width=128), "bfloat16")
    media = [jax.ShapeDtypeStruct((2, 729, 144), jnp.bfloat16), jax.ShapeDtypeStruct((2, 729), bool)]
    for model, inputs in ((tower, [pixels]), (resampler, media)):
        assert "splash_mha" in compiled_gradient(mesh, model, inputs).as_text()


@pytest.mark.parametrize("remat", ["minimal_offloaded", "qkv_offloaded", "inputs_offloaded"])
def test_offloaded_results_lie_in_the_host_s_memory(mesh, remat):
    compiled = compiled_gradient(mesh, Phi3(replace(DECODER, remat=remat), "bfloat16"), rows())
    assert compiled.memory_analysis().host_temp_size_in_bytes > 0
