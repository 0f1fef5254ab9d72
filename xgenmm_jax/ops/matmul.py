"""Matrix products with a layer's kernel and gradients of our own for them: what every linear map is made of.

JAX derives a kernel's gradient as (dy^T x)^T; a CPU copies the transposed result, so here it is x^T dy where x is the
narrower of the two.
Forward-mode differentiation (`jax.jvp`) does not go through such rules: JAX says so when it is tried.
"""

import functools
import math
from typing import NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.lax import dot_general
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from xgenmm_jax.ops import gemv
from xgenmm_jax.ops.partitioning import on_one_gpu

MATMUL = "matmul"
"""Checkpoint name of every matrix product: JAX's policies by `dot_general` do not see into custom gradients."""


class Affine(NamedTuple):
    """Scale and bias of a layer norm, applied to its standardized input."""

    scale: Float32[Array, " E"]
    bias: Float32[Array, " E"]

    def __call__(self, x: Float32[Array, "*n E"]) -> Float32[Array, "*n E"]:
        shape = (1,) * (x.ndim - 1) + self.scale.shape
        return x * self.scale.reshape(shape) + self.bias.reshape(shape)


def matmul(
    x: Float[Array, "..."], kernel: Float[Array, "..."], count: int, dtype: DTypeLike | None = None
) -> Float[Array, "..."]:
    """Contracts the last `count` axes of x with the first `count` of the kernel. dtype: of the result, by default x's.

    A single vector (decoding at batch 1) goes through `gemv` on an NVIDIA GPU.
    """
    rows, columns = math.prod(kernel.shape[:count]), math.prod(kernel.shape[count:])
    if x.size == rows and on_one_gpu() and gemv.is_possible(rows, columns):
        y = gemv.gemv(x.reshape(rows), kernel.reshape(rows, columns))
        return y.reshape(*x.shape[: x.ndim - count], *kernel.shape[count:]).astype(dtype or x.dtype)
    return checkpoint_name(_matmul(x, kernel, count, dtype), MATMUL)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _matmul(
    x: Float[Array, "..."], kernel: Float[Array, "..."], count: int, dtype: DTypeLike | None
) -> Float[Array, "..."]:
    axes = tuple(range(x.ndim - count, x.ndim)), tuple(range(count))
    return dot_general(x, kernel, (axes, ((), ())), preferred_element_type=dtype)


def _matmul_forward(x, kernel, count, dtype):
    return _matmul(x, kernel, count, dtype), (x, kernel)


def _matmul_gradients(count, dtype, operands, dy):
    x, kernel = operands
    dx = _times_transposed(dy, kernel, count, dtype).astype(x.dtype)
    return dx, _transposed_times(x, dy, count, dtype).astype(kernel.dtype)


_matmul.defvjp(_matmul_forward, _matmul_gradients)


def norm_matmul(x: Float32[Array, "*n E"], norm: Affine, kernel: Float[Array, "E ..."]) -> Float[Array, "..."]:
    """A layer norm's second half and a linear map: norm(x), rounded to the kernel's dtype, times the kernel.

    x is standardized. The gradients of norm and kernel both come from x^T dy. Where x needs no gradient (features of a
    frozen tower), the product with the kernel's transpose, a third of the map's training, is never computed. Of the
    forward pass only x is saved, once for any number of norms and kernels.
    """
    return checkpoint_name(_norm_matmul(x, norm, kernel), MATMUL)


@jax.custom_vjp
def _norm_matmul(x: Float32[Array, "*n E"], norm: Affine, kernel: Float[Array, "E ..."]) -> Float[Array, "..."]:
    return _matmul(norm(x).astype(kernel.dtype), kernel, 1, None)


def _norm_matmul_forward(x, norm, kernel):
    return _norm_matmul(x, norm, kernel), (x, norm, kernel)


def _norm_matmul_gradients(operands, dy):
    x, norm, kernel = operands
    width = kernel.shape[0]
    columns = kernel.astype(jnp.float32).reshape(width, -1)
    of_scaled = _transposed_times(x.astype(kernel.dtype), dy, 1, jnp.float32).reshape(width, -1)
    of_shift = jnp.sum(dy, axis=tuple(range(x.ndim - 1)), dtype=jnp.float32).reshape(-1)
    d_norm = Affine(jnp.sum(of_scaled * columns, axis=1), columns @ of_shift)
    d_kernel = norm.scale[:, None] * of_scaled + norm.bias[:, None] * of_shift[None]
    # The compiler leaves this product out where x's gradient is not used.
    dx = _times_transposed(dy, kernel, 1, jnp.float32) * norm.scale.reshape((1,) * (x.ndim - 1) + (width,))
    return dx, d_norm, d_kernel.reshape(kernel.shape).astype(kernel.dtype)


_norm_matmul.defvjp(_norm_matmul_forward, _norm_matmul_gradients)


def _times_transposed(dy: Array, kernel: Array, count: int, dtype: DTypeLike | None) -> Array:
    """dy kernel^T: x's gradient. count: axes of the kernel that belong to x."""
    outputs = kernel.ndim - count
    axes = tuple(range(dy.ndim - outputs, dy.ndim)), tuple(range(count, kernel.ndim))
    return dot_general(dy, kernel, (axes, ((), ())), preferred_element_type=dtype)


def _transposed_times(x: Array, dy: Array, count: int, dtype: DTypeLike | None) -> Array:
    """x^T dy, over all axes of x but its last `count`: the kernel's gradient. The narrower of the two goes first."""
    rows = tuple(range(x.ndim - count))
    axes = ((rows, rows), ((), ()))
    if x.size <= dy.size:
        return dot_general(x, dy, axes, preferred_element_type=dtype)
    transposed = dot_general(dy, x, axes, preferred_element_type=dtype)
    outputs = dy.ndim - len(rows)
    return transposed.transpose(*range(outputs, transposed.ndim), *range(outputs))
