"""Which implementation computes attention: by the platform of the mesh in force, or by name."""

from typing import Literal

from xgenmm_jax.ops.partitioning import platform

Implementation = Literal["auto", "xla", "splash", "flash"]
"""auto: by the platform of the mesh; rows shorter than SHORTEST_KERNEL_ROW always take XLA. splash: JAX's TPU kernels.
flash: Pallas kernels for NVIDIA GPUs from Ampere on. Off their platform both run in an interpreter, for tests."""

KERNELS = {"tpu": "splash", "gpu": "flash"}
"""A device's platform to the implementation of "auto"; xla on every other."""

SHORTEST_KERNEL_ROW = 128
"""Kernels pad queries and keys to blocks of 128: below, XLA's scores are small and the padding is most of the work."""

LONG_ROW = 2048
"""XLA computes packed rows from here on block by block (`attention_blockwise`); below, rows gain nothing by it, and a
single sample that fills its row loses."""

LONG_ROW_MULTIPLE = 512
"""Of the length of such rows; `attention_blockwise.BLOCK` divides it."""


def implementation_for(implementation: str, length: int, keys: int) -> str:
    """xla, splash or flash, for rows of `length` queries and `keys` keys. Raises ValueError for another name."""
    if implementation == "auto":
        return KERNELS.get(platform(), "xla") if min(length, keys) >= SHORTEST_KERNEL_ROW else "xla"
    if implementation not in ("xla", *KERNELS.values()):
        raise ValueError(f"attention: got {implementation!r}, wanted auto, xla, splash or flash; choose one of these.")
    return implementation


def is_long(length: int) -> bool:
    """Whether XLA computes packed rows of this length block by block."""
    return length >= LONG_ROW and length % LONG_ROW_MULTIPLE == 0
