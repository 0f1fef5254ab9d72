"""Vector times matrix (GEMV) on an NVIDIA GPU, bound by memory bandwidth: what decoding at batch 1 is made of.

Every number of the matrix is read once and used once, so speed depends on how many loads are in flight. The rows of the
matrix are split into parts as well as its columns (split-K), so that narrow matrices keep every multiprocessor busy;
the parts' sums are float32 and added in a fixed order.
"""

import functools

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

COLUMNS, ROWS = 64, 64
"""Of the block that a program multiplies at a time."""
PARTS = 8
WARPS, STAGES = 4, 4


def is_possible(rows: int, columns: int) -> bool:
    """Whether the kernel takes a matrix [rows columns]."""
    return rows % (ROWS * PARTS) == 0 and columns % COLUMNS == 0


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def gemv(
    vector: Float[Array, " K"], matrix: Float[Array, "K N"], interpret: bool = False
) -> Float32[Array, " N"]:
    """vector @ matrix, summed in float32. interpret: run on a CPU."""
    count, width = matrix.shape
    sums = pl.pallas_call(
        functools.partial(_kernel, steps=count // (ROWS * PARTS)),
        grid=(width // COLUMNS, PARTS),
        in_specs=[
            pl.BlockSpec((count // PARTS,), lambda n, part: (part,)),
            pl.BlockSpec((count // PARTS, COLUMNS), lambda n, part: (part, n)),
        ],
        out_specs=pl.BlockSpec((None, COLUMNS), lambda n, part: (part, n)),
        out_shape=jax.ShapeDtypeStruct((PARTS, width), jnp.float32),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=STAGES),
        interpret=interpret,
        name="gemv",
    )(vector, matrix)
    return jnp.sum(sums, axis=0)


@gemv.defjvp
def _tangent(interpret, primals, tangents):
    # XLA's products: decoding is never differentiated, but a batch of one position may be trained on.
    (vector, matrix), (d_vector, d_matrix) = primals, tangents
    dot = functools.partial(jnp.dot, preferred_element_type=jnp.float32)
    return gemv(vector, matrix, interpret), dot(d_vector, matrix) + dot(vector, d_matrix)


def _kernel(vector_ref, matrix_ref, sums_ref, *, steps: int):
    def body(number, total):
        rows = pl.ds(number * ROWS, ROWS)
        block = plgpu.load(matrix_ref.at[rows, :]).astype(jnp.float32)
        return total + vector_ref[rows].astype(jnp.float32)[:, None] * block

    total = jax.lax.fori_loop(0, steps, body, jnp.zeros((ROWS, COLUMNS), jnp.float32))
    sums_ref[...] = jnp.sum(total, axis=0)
