"""Products and their gradients, beside what JAX derives from the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models.layers import standardize
from xgenmm_jax.ops.matmul import Affine, matmul, norm_matmul


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("outputs", [(3,), (2, 5, 4)])
@pytest.mark.parametrize(("rows", "inputs"), [((2, 7), (6,)), ((9,), (2, 3))])
def test_gradients_of_a_product(rows, inputs, outputs):
    """Kernels wider and narrower than what they multiply, with one and with two axes of inputs."""
    x, kernel = normal(0, *rows, *inputs), normal(1, *inputs, *outputs)
    dy = normal(2, *rows, *outputs)
    y, back = jax.vjp(lambda x, kernel: matmul(x, kernel, len(inputs)), x, kernel)
    expected, plain = jax.vjp(lambda x, kernel: jnp.tensordot(x, kernel, len(inputs)), x, kernel)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    for got, expected in zip(back(dy), plain(dy), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_gradients_of_a_bfloat16_product_keep_their_dtypes():
    x, kernel = normal(0, 4, 6).astype(jnp.bfloat16), normal(1, 6, 3).astype(jnp.bfloat16)
    y, back = jax.vjp(lambda x, kernel: matmul(x, kernel, 1, jnp.float32), x, kernel)
    assert y.dtype == jnp.float32
    assert [gradient.dtype for gradient in back(y)] == [jnp.bfloat16, jnp.bfloat16]


def normed(features, scale, bias, kernel):
    return norm_matmul(standardize(features, 1e-5), Affine(scale, bias), kernel)


def plain(features, scale, bias, kernel):
    return jnp.tensordot(Affine(scale, bias)(standardize(features, 1e-5)), kernel, 1)


OPERANDS = (normal(0, 2, 7, 6), 1 + normal(1, 6), normal(2, 6), normal(3, 6, 2, 4))


def test_gradients_of_a_norm_and_its_product():
    got, back = jax.vjp(normed, *OPERANDS)
    expected, reference = jax.vjp(plain, *OPERANDS)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    dy = normal(4, *got.shape)
    for one, other in zip(back(dy), reference(dy), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("trained", "products"), [((1, 2, 3), 1), ((0, 1, 2, 3), 2)])
def test_features_that_need_no_gradient_cost_no_product(trained, products):
    """The kernel's gradient is one large product; the features' would be another."""

    def gradients(operands, dy):
        def of_trained(*chosen):
            return normed(*(dict(zip(trained, chosen, strict=True)).get(n, x) for n, x in enumerate(operands)))

        return jax.vjp(of_trained, *(operands[n] for n in trained))[1](dy)

    operands = (normal(0, 8, 64, 96), *(normal(n, 96) for n in (1, 2)), normal(3, 96, 2, 48))
    compiled = jax.jit(gradients).lower(operands, normal(4, 8, 64, 2, 48)).compile()
    one = 2 * 8 * 64 * 96 * 96
    assert round(compiled.cost_analysis()["flops"] / one) == products
