"""The diffusion transformer's logical axes: what is cut on a mesh, what Muon takes for inputs, the same on any mesh."""

import blip3o_goldens as goldens
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import random_parameters

from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.models import sizes
from xgenmm_jax.models.dit import DiT, DiTConfig
from xgenmm_jax.models.eva import EVA, EVAConfig
from xgenmm_jax.models.lora import input_axes
from xgenmm_jax.ops.partitioning import is_box, path_name, unboxed
from xgenmm_jax.training.sharding import MeshConfig, axis_rules, make_mesh, param_shardings

SMALL = DiTConfig(channels=8, width=32, layers=2, heads=4, kv_heads=2, context_width=16, multiple_of=32)
TOWER = EVAConfig(image_size_px=32, patch_px=8, width=32, hidden=64, layers=2, heads=4)


def boxed(config):
    arrays = jnp.zeros((1, 8, 8, config.channels)), jnp.zeros(1), jnp.zeros((1, 64, config.context_width))
    return jax.eval_shape(DiT(config).init, jax.random.key(0), *arrays)["params"]


def named(tree):
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_box)}


def test_all_large_parameters_of_the_published_size_are_cut():
    tree = boxed(sizes.BLIP3O_4B)
    for mesh in (MeshConfig(fsdp=8), MeshConfig(replica=2, fsdp=2, tensor=2)):
        shardings = named(param_shardings(make_mesh(mesh), tree))
        whole = sum(leaf.value.size for name, leaf in named(tree).items() if not any(shardings[name].spec))
        assert whole < 2e-3 * 1_362_257_824


def test_inputs_of_every_kernel_are_those_of_the_official_map():
    """Muon orthogonalises a kernel as a matrix of inputs and outputs, which it tells by logical names."""
    config = sizes.BLIP3O_4B
    leaves = named(boxed(config))
    flat = goldens.flat(unboxed(boxed(config)))
    rules = goldens.blip3o.dit_rules(config, "model.")
    shapes = their_shapes(rules, {name: leaf.shape for name, leaf in flat.items()})
    kernels = [rule for rule in rules if rule.ours.endswith("/kernel")]
    assert len(kernels) == 15
    for rule in kernels:
        leaf = leaves[rule.ours.removeprefix("drawing/dit/")]
        names, shape = (tuple(values)[bool(rule.layers) :] for values in (leaf.names, leaf.value.shape))
        assert np.prod(shape[: input_axes(names)]) == shapes[rule.pieces(0)[0].name][1], rule.ours


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dit", "eva"])
def test_a_mesh_changes_nothing(model):
    """Output and gradients over replicas, cut parameters and cut heads are those of one device."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    module, inputs = {
        "dit": (DiT(SMALL), (normal(8, 4, 6, 8), jnp.linspace(1, 1000, 8), normal(8, 5, 16))),
        "eva": (EVA(TOWER), (normal(8, 32, 32, 3),)),
    }[model]
    params = random_parameters(module.init, *inputs)

    def loss(params, *inputs):
        out = module.apply(params, *inputs)
        return jnp.mean(jnp.square(out)), out

    def run(params, *inputs):
        with axis_rules():
            return jax.value_and_grad(loss, has_aux=True)(params, *inputs)

    with jax.default_matmul_precision("highest"):
        expected = jax.jit(run)(params, *inputs)
        mesh = make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))
        shardings = param_shardings(mesh, jax.eval_shape(module.init, jax.random.key(0), *inputs))
        with jax.set_mesh(mesh):
            result = jax.jit(run)(jax.device_put(nn.unbox(params), shardings), *inputs)
    leaves = list(zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True))
    # Sums go in another order; some gradients are 0 but for rounding.
    rounding = 1e-6 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    for ours, theirs in leaves:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max() + rounding)
