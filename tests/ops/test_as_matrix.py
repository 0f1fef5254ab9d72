"""Kernels of several axes as matrices, so that their gradients are summed and scattered in one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models.layers import Affine, Linear
from xgenmm_jax.ops.partitioning import as_matrix
from xgenmm_jax.training.sharding import MeshConfig, axis_rules, make_mesh, param_shardings

QKV = ("embed", "heads", None, "kv")
GATE_UP = ("embed", None, "mlp")
OUT = ("heads", "kv", "embed")


def matrix_of(shape, names, inputs, mesh):
    def shape_of(kernel):
        with axis_rules():
            matrix = as_matrix(kernel, names, inputs)
        return None if matrix is None else jnp.zeros(matrix.shape)

    with jax.set_mesh(mesh):
        result = jax.eval_shape(shape_of, jax.ShapeDtypeStruct(shape, jnp.float32))
    return None if result is None else result.shape


def test_a_mesh_merges_axes_and_one_device_none():
    mesh, one = make_mesh(MeshConfig(2, 4, 1)), make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    assert matrix_of((16, 4, 3, 6), QKV, 1, mesh) == (16, 72)
    assert matrix_of((16, 2, 32), GATE_UP, 1, mesh) == (16, 64)
    assert matrix_of((4, 6, 16), OUT, 2, mesh) == (24, 16)
    assert matrix_of((16, 32), ("embed", "mlp"), 1, mesh) is None, "is a matrix"
    assert matrix_of((16, 4, 3, 6), QKV, 1, one) is None
    assert as_matrix(jnp.zeros((16, 2, 32)), GATE_UP, 1) is None, "no mesh"


def test_an_axis_that_is_cut_inside_a_group_is_not_merged():
    """Gate and up lie before the hidden width that the tensor axis cuts; heads are the first of theirs."""
    mesh = make_mesh(MeshConfig(1, 4, 2))
    assert matrix_of((16, 2, 32), GATE_UP, 1, mesh) is None
    assert matrix_of((16, 4, 3, 6), QKV, 1, mesh) == (16, 72)
    assert matrix_of((4, 6, 16), OUT, 2, mesh) == (24, 16)


@pytest.mark.parametrize("mesh_config", [MeshConfig(2, 4, 1), MeshConfig(1, 4, 2)])
@pytest.mark.parametrize(
    "outputs, axes, x_shape, is_normed",
    [
        ((4, 3, 6), QKV, (8, 5, 16), False),
        ((2, 32), GATE_UP, (8, 5, 16), False),
        ((16,), OUT, (8, 5, 4, 6), False),
        ((2, 4, 6), ("vision_embed", None, "heads", "kv"), (8, 5, 16), True),
    ],
)
def test_results_and_gradients_are_those_of_one_device(mesh_config, outputs, axes, x_shape, is_normed):
    layer = Linear(outputs, axes, jax.nn.initializers.normal(1.0), jax.nn.initializers.normal(1.0))
    x = jax.random.normal(jax.random.key(0), x_shape)
    norm = Affine(jnp.linspace(0.5, 2, 16), jnp.linspace(-1, 1, 16)) if is_normed else None
    boxed = layer.init(jax.random.key(1), x)["params"]
    params = {name: leaf.value for name, leaf in boxed.items()}

    def loss(params, x):
        y = layer.apply({"params": params}, x, norm)
        assert y.shape == (*x_shape[:2], *outputs)
        return jnp.sum(jnp.sin(y))

    def under_rules(params, x):
        with axis_rules():
            return jax.value_and_grad(loss, argnums=(0, 1))(params, x)

    expected = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)
    mesh = make_mesh(mesh_config)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, param_shardings(mesh, boxed))
        got = jax.jit(under_rules)(sharded, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, expected)
