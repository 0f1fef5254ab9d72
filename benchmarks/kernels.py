"""The NVIDIA kernels by themselves: attention beside cuDNN's at the shapes of 4B, the matrices of a decoding step.

    python -m benchmarks.kernels                              # right, and how fast
    python -m benchmarks.kernels --tiles --json tiles.json    # and with each of some tiles, the fastest first

Rows of 4096 hold five samples, as stage 1 packs them; "whole" is one causal sample, which cuDNN takes too. FLOP/s count
visible pairs of query and key; a backward pass is two and a half forward ones. Bytes are the matrix's. Errors are
|ours - XLA's in float32| / |XLA's|. Needs a GPU; about two minutes, compilation included.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import functools
import itertools
import json
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.report import print_table, show
from xgenmm_jax import files
from xgenmm_jax.ops import attention_triton, gemv
from xgenmm_jax.ops.attention import attend
from xgenmm_jax.ops.attention_triton import Tile
from xgenmm_jax.ops.masks import AttentionMask, SlidingWindow, packed_causal_mask

SAMPLES = (1200, 60, 1500, 180, 1100)
ROWS, LENGTH, HEADS, WIDTH = 4, 4096, 32, 96
WINDOW = SlidingWindow(2047)
CROPS, PATCHES, TOWER_HEADS, TOWER_WIDTH = 64, 729, 16, 72
MATRICES = ((3072, 9216), (3072, 3072), (3072, 16384), (8192, 3072))
"""Phi-3-mini's layer: queries, keys and values; out; into the feed-forward; out of it."""
COPIES = 4
"""Of each matrix, in turns: together larger than any cache."""
TILES = [Tile(*shape) for shape in itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3))]
BLOCKS = list(itertools.product((32, 64, 128), (32, 64), (4, 8, 16), (4, 8)))
"""gemv's columns, rows, parts, warps."""

Figures = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", action="store_true", help="try every tile of the kernels, minutes more")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args(argv)
    device = jax.devices()[0]
    if device.platform != "gpu":
        raise SystemExit(f"kernels: got {device.device_kind}, wanted an NVIDIA GPU; run it where JAX sees one.")
    figures = [*attention_figures(), *gemv_figures()]
    if arguments.tiles:
        figures += [*tile_figures(), *block_figures()]
    rows = [(f["name"], f"{f['ms']:.3f}", f"{f['rate']:,.2f} {f['unit']}", f.get("error", "")) for f in figures]
    print_table(f"Kernels on {device.device_kind}", ("kernel", "ms", "rate", "errors"), rows)
    if arguments.json:
        result = {"device": device.device_kind, "kernels": figures}
        files.write_whole(arguments.json, json.dumps(result, indent=2) + "\n")
    return 0


def attention_figures() -> Iterator[Figures]:
    """Decoder and tower, ours and cuDNN's; a side that fails is reported and left out."""
    segments, positions = packed()
    heads = random_heads(ROWS, LENGTH, HEADS, WIDTH)
    ones = jnp.ones((ROWS, LENGTH), jnp.int32)
    whole = ROWS * HEADS * LENGTH * (LENGTH + 1) / 2
    crops = random_heads(CROPS, PATCHES, TOWER_HEADS, TOWER_WIDTH)
    cudnn = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    mask = packed_causal_mask(segments, positions, WINDOW, "flash")
    sides: list[tuple[str, Callable, tuple, float]] = [
        ("decoder, packed: ours", lambda *x: attend(*x, mask, WINDOW, "flash"), heads, pairs()),
        (
            "decoder, whole: ours",
            lambda *x: attend(*x, AttentionMask(None, ones, ones), SlidingWindow(), "flash"),
            heads,
            whole,
        ),
        ("decoder, whole: cuDNN", functools.partial(cudnn, is_causal=True), heads, whole),
        ("tower: ours", lambda *x: attend(*x, implementation="flash"), crops, CROPS * TOWER_HEADS * PATCHES**2),
        ("tower: cuDNN", cudnn, crops, CROPS * TOWER_HEADS * PATCHES**2),
    ]
    for name, function, inputs, count in sides:
        flops = 4 * inputs[0].shape[-1] * count
        gradient = jax.grad(lambda *x, f=function: jnp.sum(f(*x).astype(jnp.float32) ** 2), argnums=(0, 1, 2))
        try:
            yield figure(f"{name}, forward", function, inputs, flops / 1e12, "TFLOP/s")
            yield figure(f"{name}, both", gradient, inputs, 3.5 * flops / 1e12, "TFLOP/s")
        except Exception as error:
            show(f"{name} failed: {str(error).strip().splitlines()[0]}")
    ours = value_and_gradients(heads, mask, "flash")
    with jax.default_matmul_precision("highest"):
        exact = tuple(x.astype(jnp.float32) for x in heads)
        expected = value_and_gradients(exact, packed_causal_mask(segments, positions, WINDOW, "xla"), "xla")
    errors = " ".join(f"{distance(a, b):.1e}" for a, b in zip(ours, expected, strict=True))
    show(f"context, d_query, d_key, d_value of packed rows: {errors} from XLA's")


def gemv_figures() -> Iterator[Figures]:
    """Each matrix of a layer through our kernel and through XLA."""
    for shape in MATRICES:
        vector, matrices = jnp.ones(shape[0], jnp.bfloat16), random_matrices(shape)
        size = COPIES * 2 * shape[0] * shape[1] / 1e12
        ours = jax.random.normal(jax.random.key(1), (shape[0],), jnp.bfloat16)
        error = distance(gemv.gemv(ours, matrices[0]), ours.astype(jnp.float32) @ matrices[0].astype(jnp.float32))
        for name, multiply in (("ours", gemv.gemv), ("XLA", lambda v, m: v[None] @ m)):
            measured = figure(
                f"{shape[0]} x {shape[1]}: {name}",
                lambda v, ms, f=multiply: [f(v, m) for m in ms],
                (vector, matrices),
                size,
                "TB/s",
            )
            yield {**measured, "error": f"{error:.1e}" if name == "ours" else ""}


def tile_figures() -> list[Figures]:
    """The three attention kernels with every tile, the fastest first; tiles that do not fit are left out."""
    segments, _ = packed()
    query, key, value = random_heads(ROWS, LENGTH, HEADS, WIDTH)
    options = attention_triton._Options(attention_triton.Order(-WINDOW.left, 0), "", False)
    context, log_total = jax.jit(lambda: attention_triton._context(query, key, value, segments, segments, options))()
    delta = jnp.sum(jnp.square(context.astype(jnp.float32)), axis=-1).transpose(0, 2, 1)
    head, tail = (query, key, value, segments, segments), (context, log_total, delta)
    kernels = {
        "FORWARD": (lambda: attention_triton._context(*head, options), 4),
        "QUERY_GRADIENT": (lambda: attention_triton._query_gradient(*head, *tail, options), 6),
        "KEY_VALUE_GRADIENT": (lambda: attention_triton._key_value_gradients(*head, *tail, options), 8),
    }
    figures = []
    for name, (kernel, matmuls) in kernels.items():
        flops, usual = matmuls * WIDTH * pairs() / 1e12, getattr(attention_triton, name)
        figures += tried(attention_triton, (name,), [(tile,) for tile in TILES], kernel, (), flops, "TFLOP/s")
        setattr(attention_triton, name, usual)
    return figures


def block_figures() -> list[Figures]:
    """The matrices of a layer, all of them, with every block of gemv."""
    names = ("COLUMNS", "ROWS", "PARTS", "WARPS")
    vectors = [jnp.ones(rows, jnp.bfloat16) for rows, _ in MATRICES]
    matrices = [random_matrices(shape) for shape in MATRICES]
    size = COPIES * sum(2 * rows * columns for rows, columns in MATRICES) / 1e12

    def all_of_them(vectors, matrices):
        return [gemv.gemv(v, m) for v, ms in zip(vectors, matrices, strict=True) for m in ms]

    usual = [getattr(gemv, name) for name in names]
    fitting = []
    for block in BLOCKS:
        gemv.COLUMNS, gemv.ROWS, gemv.PARTS = block[:3]
        fitting += [block] if all(gemv.is_possible(*shape) for shape in MATRICES) else []
    figures = tried(gemv, names, fitting, all_of_them, (vectors, matrices), size, "TB/s")
    for name, value in zip(names, usual, strict=True):
        setattr(gemv, name, value)
    return figures


def tried(
    module: Any,
    names: tuple[str, ...],
    settings: Sequence[tuple],
    function: Callable,
    inputs: tuple,
    work: float,
    unit: str,
) -> list[Figures]:
    """`figure` with the module's constants `names` at each of the settings, the fastest first."""
    figures = []
    for values in settings:
        for name, value in zip(names, values, strict=True):
            setattr(module, name, value)
        try:
            label = f"{names[0]} {values[0] if len(values) == 1 else values}"
            # A new function each time: jit knows nothing of the constants.
            figures.append(figure(label, lambda *x: function(*x), inputs, work, unit))
        except Exception as error:
            show(f"{names[0]} {values} failed: {str(error).strip().splitlines()[0][:100]}")
    return sorted(figures, key=lambda one: one["ms"])


def figure(name: str, function: Callable, inputs: tuple, work: float, unit: str, repeats: int = 10) -> Figures:
    """Of the fastest of three turns. work: of one call, in the unit that `unit` has a second."""
    jitted = jax.jit(function)
    jax.block_until_ready(jitted(*inputs))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(repeats):
            result = jitted(*inputs)
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - start) / repeats)
    return {"name": name, "ms": 1e3 * min(seconds), "rate": work / min(seconds), "unit": unit}


def packed() -> tuple[jax.Array, jax.Array]:
    """Segment ids and positions of rows that hold SAMPLES, padding behind."""
    segments, positions = np.zeros((ROWS, LENGTH), np.int32), np.zeros((ROWS, LENGTH), np.int32)
    start = 0
    for number, length in enumerate(SAMPLES, 1):
        segments[:, start : start + length] = number
        positions[:, start : start + length] = np.arange(length)
        start += length
    return jnp.asarray(segments), jnp.asarray(positions)


def pairs() -> float:
    """Queries and keys of the packed rows that attend to each other, over all heads."""
    return ROWS * HEADS * sum(length * (length + 1) / 2 for length in SAMPLES)


def random_heads(rows: int, length: int, heads: int, width: int) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(0), 3)
    return tuple(jax.random.normal(key, (rows, length, heads, width), jnp.bfloat16) for key in keys)


def random_matrices(shape: tuple[int, int]) -> list[jax.Array]:
    return [jax.random.normal(key, shape, jnp.bfloat16) for key in jax.random.split(jax.random.key(2), COPIES)]


def value_and_gradients(
    heads: tuple[jax.Array, ...], mask: AttentionMask, implementation: str
) -> tuple[jax.Array, ...]:
    def total(*heads):
        context = attend(*heads, mask, WINDOW, implementation)[:, : sum(SAMPLES)]
        return jnp.sum(context.astype(jnp.float32) ** 2), context

    (_, context), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*heads)
    return context, *gradients


def distance(got: jax.Array, expected: jax.Array) -> float:
    got, expected = (x.astype(jnp.float32).ravel() for x in (got, expected))
    return float(jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected))


if __name__ == "__main__":
    raise SystemExit(main())
