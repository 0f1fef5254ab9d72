"""The matrix products of a step on one chip, as the program computes them: forward, backward and rematerialised.

`models/flops.py` counts what the mathematics asks for; here stand the shapes, so that what a matrix unit makes of them
follows. Attention is computed in whole blocks by the splash kernels, the head in whole chunks of the loss.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.flops import Flops, trained_parts, visible_pairs
from xgenmm_jax.models.mlp_connector import MLPConnectorConfig
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.models.remat import OFFLOADED_NAMES, SAVED_NAMES
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.ops.attention_choice import SHORTEST_KERNEL_ROW
from xgenmm_jax.ops.attention_splash import MOST_FUSED_BLOCKS, blocks
from xgenmm_jax.training.config import TrainConfig

NAMES = ("qkv", "context", "out_proj", "mlp_in")
"""What a layer's backward pass needs again, by the names of remat policies; no backward pass needs the last product."""

LOGIT_BYTES = 4


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


class _Passes(NamedTuple):
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


def step_products(config: TrainConfig, shards: int, tensor: int) -> list[Product]:
    """All of a step on full rows, by one of `shards` x `tensor` chips.

    shards: chips, or groups of `tensor` chips, that have rows of their own. Raises ValueError for a model that is no
    VLM.
    """
    model, data = config.model, config.data
    if not isinstance(model, VLMConfig):
        raise ValueError(f"plan: got a {type(model).__name__}; only stages of the whole model are planned.")
    rows, micro = data.batch_rows // (shards * config.accumulation), config.accumulation
    reference = int(config.objective.needs_reference)
    training = trained_parts(config.freeze, config.lora)
    trains = {part: trained.at_all for part, trained in training.items()}
    remats = {part: getattr(getattr(model, part), "remat", "none") for part in trains}
    passes, is_reached = {}, False  # is_reached: by gradients of an earlier part
    for part, has_gradients in trains.items():
        again = reference if part == "decoder" or part == "connector" and has_gradients else 0
        missing = frozenset(NAMES) - kept_products(remats[part])
        passes[part] = _Passes(1 + again, has_gradients or is_reached, training[part].whole, missing)
        is_reached = is_reached or has_gradients
    chunk = min(getattr(config.objective, "chunk", data.row.length), data.row.length)
    products = [
        *_vision(model, rows * data.row.crops, passes["vision"], tensor),
        *_connector(model, rows * data.row.crops, rows * data.row.images, passes["connector"], trains, tensor),
        *_decoder(model, rows, data.row.length, passes["decoder"], is_reached, tensor),
        *_head(model, rows, supervised(data.row), chunk, passes["decoder"], tensor),
    ]
    size = 2 if model.dtype == "bfloat16" else 4
    return [
        p._replace(times=p.times * micro, flops=p.flops * micro, bytes=p.bytes * micro * size // 2) for p in products
    ]


def supervised(row: RowConfig) -> int:
    """Targets of a full row: all that is text."""
    return max(row.length - row.vision_tokens * (row.crops if row.vision_tokens_per == "crop" else row.images), 0)


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


def _linear(
    part: str, count: int, m: int, k: int, n: int, passes: _Passes, again: int = 0, result: int = 2
) -> Iterator[Product]:
    """A map of m vectors in `count` layers. again: times that the backward pass repeats it. result: bytes a number."""
    flops, traffic = 2 * m * k * n * count, (2 * (m * k + k * n) + result * m * n) * count
    forward = passes.forward + again
    yield Product(part, m, k, n, count * forward, flops * forward, traffic * forward)
    if passes.inputs:
        yield Product(part, m, n, k, count, flops, traffic)
    if passes.weights:
        yield Product(part, k, m, n, count, flops, traffic)


def _attention(
    part: str, count: int, rows: int, length: int, keys: int, pairs: int, heads: int, kv_heads: int, width: int,
    passes: _Passes, left: int | None = None, causal: bool = False, kernel: str = "auto",
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


def _vision(model: VLMConfig, crops: int, passes: _Passes, tensor: int) -> Iterator[Product]:
    vision = model.vision
    width, tokens = vision.width, vision.patches + vision.class_token
    heads, hidden = _cut(vision.heads, tensor), _cut(vision.hidden, tensor)
    inner, head_width = heads * (width // vision.heads), width // vision.heads
    m, layers = crops * tokens, vision.layers
    yield from _linear("vision", 1, crops * vision.patches, 3 * vision.patch_px**2, width, passes)
    yield from _linear("vision", layers, m, width, 3 * inner, passes, passes.again("qkv"))
    yield from _attention(
        "vision", layers, crops, tokens, tokens, tokens**2, heads, heads, head_width, passes, kernel=vision.attention
    )
    yield from _linear("vision", layers, m, inner, width, passes, passes.again("out_proj"))
    yield from _linear("vision", layers, m, width, hidden, passes, passes.again("mlp_in"))
    yield from _linear("vision", layers, m, hidden, width, passes)


def _connector(
    model: VLMConfig, crops: int, images: int, passes: _Passes, trains: dict[str, bool], tensor: int
) -> Iterator[Product]:
    connector, features = model.connector, crops * model.vision.patches
    of_features = passes._replace(inputs=trains["vision"])  # a frozen tower's features need no gradient
    if isinstance(connector, MLPConnectorConfig):
        yield from _linear("connector", 1, features, connector.width, connector.out_width, of_features)
        yield from _linear("connector", 1, features, connector.out_width, connector.out_width, passes)
        return
    if isinstance(connector, QFormerConfig):
        yield from _qformer(connector, crops, model.vision.features, passes, tensor)
        return
    assert isinstance(connector, ResamplerConfig)
    groups = images if model.token_sampling is TokenSampling.FIXED_SAMPLING else crops
    width, layers = connector.width, connector.layers
    heads, hidden = _cut(connector.heads, tensor), _cut(connector.hidden, tensor)
    inner, latents = heads * connector.head_width, connector.queries + connector.instruction_tokens
    m = groups * latents
    qkv = passes.again("qkv")
    yield from _linear("connector", layers, m, width, inner, passes, qkv)
    yield from _linear("connector", layers, features, width, 2 * inner, of_features, qkv)
    yield from _linear("connector", layers, m, width, 2 * inner, passes, qkv)
    keys = features // max(groups, 1) + latents
    yield from _attention(
        "connector", layers, groups, latents, keys, latents * keys, heads, heads, connector.head_width, passes,
        kernel=connector.attention,
    )  # fmt: skip
    yield from _linear("connector", layers, m, inner, width, passes, passes.again("out_proj"))
    yield from _linear("connector", layers, m, width, hidden, passes, passes.again("mlp_in"))
    yield from _linear("connector", layers, m, hidden, width, passes)
    yield from _linear("connector", 1, groups * connector.queries, width, connector.out_width, passes)
    if connector.instruction_tokens:
        prompts = groups * connector.instruction_tokens
        yield from _linear("connector", 1, prompts, connector.out_width, width, passes)
        yield from _linear("connector", 1, prompts, width, width, passes)


def _qformer(connector: QFormerConfig, crops: int, features: int, passes: _Passes, tensor: int) -> Iterator[Product]:
    width, layers, queries = connector.inner, connector.layers, connector.queries
    heads, hidden, readers = (
        _cut(connector.heads, tensor),
        _cut(connector.hidden, tensor),
        layers // connector.cross_every,
    )
    head_width, m = width // connector.heads, crops * queries
    inner, qkv, kernel = heads * head_width, passes.again("qkv"), connector.attention
    yield from _linear("connector", layers, m, width, 3 * inner, passes, qkv)
    yield from _attention(
        "connector", layers, crops, queries, queries, queries**2, heads, heads, head_width, passes, kernel=kernel
    )
    # Of the layers that read features, before which a norm trains.
    yield from _linear("connector", readers, m, width, inner, passes, qkv)
    yield from _linear("connector", readers, crops * features, connector.width, 2 * inner, passes, qkv)
    yield from _attention(
        "connector", readers, crops, queries, features, queries * features, heads, heads, head_width, passes,
        kernel=kernel,
    )  # fmt: skip
    yield from _linear("connector", layers + readers, m, inner, width, passes, passes.again("out_proj"))
    yield from _linear("connector", layers, m, width, hidden, passes, passes.again("mlp_in"))
    yield from _linear("connector", layers, m, hidden, width, passes)
    yield from _linear("connector", 1, m, width, connector.out_width, passes)


def _decoder(
    model: VLMConfig, rows: int, length: int, passes: _Passes, is_reached: bool, tensor: int
) -> Iterator[Product]:
    decoder = model.decoder
    width, head_width, layers, m = decoder.width, decoder.head_width, decoder.layers, rows * length
    heads, kv_heads, hidden = (_cut(size, tensor) for size in (decoder.heads, decoder.kv_heads, decoder.hidden))
    qkv = (heads + 2 * kv_heads) * head_width
    yield from _linear("decoder", layers, m, width, qkv, passes, passes.again("qkv"))
    pairs = visible_pairs(np.array([length]), decoder)
    yield from _attention(
        "attention", layers, rows, length, length, pairs, heads, kv_heads, head_width,
        passes._replace(inputs=is_reached), decoder.sliding_window.left, causal=True, kernel=decoder.attention,
    )  # fmt: skip
    yield from _linear("decoder", layers, m, heads * head_width, width, passes, passes.again("out_proj"))
    yield from _linear("decoder", layers, m, width, 2 * hidden, passes, passes.again("mlp_in"))
    yield from _linear("decoder", layers, m, hidden, width, passes)


def _head(model: VLMConfig, rows: int, targets: int, chunk: int, passes: _Passes, tensor: int) -> Iterator[Product]:
    """In whole chunks of a row's targets; logits are float32, and the backward pass computes them again."""
    decoder = model.decoder
    whole, again = -(-targets // chunk) * chunk * rows, int(passes.inputs or passes.weights)
    for columns, needed in (
        (_cut(decoder.vocab_size, tensor), decoder.num_text_tokens),
        (decoder.num_extra_tokens, decoder.num_extra_tokens),
    ):
        for product in _linear("head", 1, whole, decoder.width, columns, passes, again, LOGIT_BYTES):
            flops = 2 * rows * targets * decoder.width * needed * product.times // tensor
            yield product._replace(flops=flops)


def _cut(size: int, tensor: int) -> int:
    """A width as the tensor axis cuts it: whole where it does not divide."""
    return size // tensor if size % tensor == 0 else size
