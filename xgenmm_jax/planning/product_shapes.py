"""Matrix products of a chip: their shapes, and those of linear maps, attention and a tower, in all passes.

Attention is computed in whole blocks by the splash kernels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from xgenmm_jax.models.eva import EVAConfig
from xgenmm_jax.models.flops import Flops
from xgenmm_jax.models.remat import OFFLOADED_NAMES, SAVED_NAMES
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.ops.attention_choice import SHORTEST_KERNEL_ROW
from xgenmm_jax.ops.attention_splash import MOST_FUSED_BLOCKS, blocks

NAMES = ("qkv", "context", "out_proj", "mlp_in")
"""What a layer's backward pass needs again, by the names of remat policies; no backward pass needs the last product."""


class Product(NamedTuple):
    """[m, k] x [k, n], `times` times in a step on one chip."""

    part: str
    """A field of `Flops`."""
    m: int
    k: int
    n: int
    times: int
    flops: int
    """That are needed, of all times together; whole blocks compute more."""
    bytes: int
    """Read from and written to the chip's memory, of all times together: each operand and result once."""

    def tiled(self, unit: int) -> int:
        """FLOPs in whole tiles of a matrix unit of `unit` x `unit`, of all times together; 0: no such unit is known.

        What is summed over and one of the other two sides fill whole tiles. The third side streams through, and takes
        as long as a tile's side where it is shorter. The better of the two choices counts.
        Example: [1024, 96] x [96, 1024] on a unit of 128 takes as long as 128 for 96.
        """
        if unit == 0:
            return 2 * self.m * self.k * self.n * self.times
        m, k, n = (-(-side // unit) * unit for side in (self.m, self.k, self.n))
        return 2 * k * min(m * max(self.n, unit), max(self.m, unit) * n) * self.times


class Passes(NamedTuple):
    """How often a part goes forward, and which gradients it has."""

    forward: int
    inputs: bool
    weights: bool
    missing: frozenset[str] = frozenset()
    """Of NAMES: what the backward pass computes again."""

    def again(self, name: str) -> int:
        return int(name in self.missing and (self.inputs or self.weights))


def kept_products(remat: str) -> set[str]:
    """Which of NAMES a policy keeps, on the device or with the host."""
    if remat in ("none", "minimal_with_context"):
        return set(NAMES)
    if remat == "minimal":
        return set(NAMES) - {"context"}
    return set({**SAVED_NAMES, **OFFLOADED_NAMES}.get(remat, ())) & set(NAMES)


def flops_of(products: list[Product]) -> Flops:
    """Needed FLOPs by part."""
    return Flops(*(sum(p.flops for p in products if p.part == part) for part in Flops._fields))


def computed_blocks(length: int, keys: int, causal: bool, left: int | None) -> tuple[int, int, int]:
    """(block of queries, block of keys, blocks that the splash kernel computes) of a row and head.

    Example: 4096 positions that see 2047 before them are 10 blocks of 1024 up to the diagonal, and one of them, the
    last queries with the first keys, is out of the window.
    """
    block_q, padded_q = blocks(length)
    block_kv, padded_kv = blocks(keys)
    if not causal:
        return block_q, block_kv, (padded_q // block_q) * (padded_kv // block_kv)
    first_q, first_kv = np.arange(0, padded_q, block_q)[:, None], np.arange(0, padded_kv, block_kv)[None]
    is_computed = first_kv <= first_q + block_q - 1
    if left is not None and left < length:
        is_computed &= first_q - (first_kv + block_kv - 1) <= left
    return block_q, block_kv, int(is_computed.sum())


def linear(
    part: str, count: int, m: int, k: int, n: int, passes: Passes, again: int = 0, result: int = 2
) -> Iterator[Product]:
    """A map of m vectors in `count` layers. again: times that the backward pass repeats it. result: bytes a number."""
    flops, traffic = 2 * m * k * n * count, (2 * (m * k + k * n) + result * m * n) * count
    forward = passes.forward + again
    yield Product(part, m, k, n, count * forward, flops * forward, traffic * forward)
    if passes.inputs:
        yield Product(part, m, n, k, count, flops, traffic)
    if passes.weights:
        yield Product(part, k, m, n, count, flops, traffic)


def attention(
    part: str, count: int, rows: int, length: int, keys: int, pairs: int, heads: int, kv_heads: int, width: int,
    passes: Passes, left: int | None = None, causal: bool = False, kernel: str = "auto",
) -> Iterator[Product]:  # fmt: skip
    """Scores and their products with values, and their gradients. pairs: needed, of a row and head."""
    block_q, block_kv, computed, kernels = length, keys, 1, 1
    if kernel == "splash" or kernel == "auto" and min(length, keys) >= SHORTEST_KERNEL_ROW:
        block_q, block_kv, computed = computed_blocks(length, keys, causal, left)
        kernels = 1 if blocks(keys)[1] // block_kv <= MOST_FUSED_BLOCKS else 2
    # Forward two products: scores, and weights by values. Backward four, and the scores again, which nothing keeps; in
    # long rows two kernels, for dQ and for dK and dV, compute the scores and their gradient each.
    forward = passes.forward + passes.again("context")
    backward = int(passes.inputs or passes.weights)
    ours, others = 2 * rows * length * heads * width, 2 * rows * keys * kv_heads * width  # bytes
    for number, traffic in (
        (2 * forward, forward * 2 * (ours + others)),
        (backward * (3 + 2 * kernels), backward * (3 * ours + 4 * others)),
    ):
        times, flops = number * count * rows * heads, 2 * width * pairs * number * count * rows * heads
        yield Product(part, block_q, width, block_kv, times * computed, flops, traffic * count)


def tower(part: str, vision: ViTConfig | EVAConfig, crops: int, passes: Passes, tensor: int) -> Iterator[Product]:
    """A transformer over the patches of so many square images."""
    width, tokens = vision.width, vision.patches + vision.class_token
    heads, hidden = cut(vision.heads, tensor), cut(vision.hidden, tensor)
    inner, head_width = heads * (width // vision.heads), width // vision.heads
    m, layers = crops * tokens, vision.layers
    yield from linear(part, 1, crops * vision.patches, 3 * vision.patch_px**2, width, passes)
    yield from linear(part, layers, m, width, 3 * inner, passes, passes.again("qkv"))
    yield from attention(
        part, layers, crops, tokens, tokens, tokens**2, heads, heads, head_width, passes, kernel=vision.attention
    )
    yield from linear(part, layers, m, inner, width, passes, passes.again("out_proj"))
    yield from linear(part, layers, m, width, hidden, passes, passes.again("mlp_in"))
    yield from linear(part, layers, m, hidden, width, passes)


def cut(size: int, tensor: int) -> int:
    """A width as the tensor axis cuts it: whole where it does not divide."""
    return size // tensor if size % tensor == 0 else size
