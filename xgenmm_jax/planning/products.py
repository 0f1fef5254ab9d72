"""The matrix products of a step on one chip, as the program computes them: forward, backward and rematerialised.

`models/flops.py` counts what the mathematics asks for; here stand the shapes, so that what a matrix unit makes of them
follows. Attention is computed in whole blocks by the splash kernels, the head in whole chunks of the loss.
"""

from collections.abc import Iterator

from jaxtyping import Int
import numpy as np

from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.flops import trained_parts, visible_pairs
from xgenmm_jax.models.mlp_connector import MLPConnectorConfig
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.planning import drawing
from xgenmm_jax.planning.product_shapes import NAMES, Passes, Product, attention, cut, kept_products, linear, tower
from xgenmm_jax.training.config import TrainConfig

LOGIT_BYTES = 4


def step_products(config: TrainConfig, shards: int, tensor: int) -> list[Product]:
    """All of a step on full rows, by one of `shards` x `tensor` chips.

    shards: chips, or groups of `tensor` chips, that have rows of their own. Raises ValueError for a model that is no
    VLM.
    """
    model, data = config.model, config.data
    if not isinstance(model, VLMConfig):
        raise ValueError(f"plan: got a {type(model).__name__}; only stages of the whole model are planned.")
    rows, micro = data.batch_rows // (shards * config.accumulation), config.accumulation
    drawn = drawing.of(config)
    products = list(_understanding(config, drawn, rows, tensor))
    if drawn is not None:
        products += drawing.products(config.model, drawn, rows * data.row.segments, tensor)
    size = 2 if model.dtype == "bfloat16" else 4
    sizes = {"connector": 4} if isinstance(model.connector, QFormerConfig) else {}  # float32 whatever the dtype
    return [
        p._replace(
            times=p.times * micro, flops=p.flops * micro, bytes=p.bytes * micro * sizes.get(p.part, size) // 2
        )
        for p in products
    ]


def _understanding(config: TrainConfig, drawn: drawing.Drawn | None, rows: int, tensor: int) -> Iterator[Product]:
    """Of so many rows: the model that reads images and text, or what of it a step that draws runs."""
    model, data = config.model, config.data
    reads_captions, reads_images = (True, True) if drawn is None else (drawn.reads_captions, drawn.reads_images)
    reference = int(config.objective.needs_reference)
    training = trained_parts(config.freeze, config.lora)
    trains = {part: trained.at_all for part, trained in training.items()}
    remats = {part: getattr(getattr(model, part), "remat", "none") for part in trains}
    passes, is_reached = {}, False  # is_reached: by gradients of an earlier part
    for part, has_gradients in trains.items():
        # Gradients go through the decoder to the queries of what is drawn.
        is_reached = is_reached or part == "decoder" and drawn is not None
        again = reference if part == "decoder" or part == "connector" and has_gradients else 0
        missing = frozenset(NAMES) - kept_products(remats[part])
        passes[part] = Passes(1 + again, has_gradients or is_reached, training[part].whole, missing)
        is_reached = is_reached or has_gradients
    if reads_images:
        yield from tower("vision", model.vision, rows * data.row.crops, passes["vision"], tensor)
        crops, images = rows * data.row.crops, rows * data.row.images
        yield from _connector(model, crops, images, passes["connector"], trains, tensor)
    if reads_captions:
        lengths = drawing.segment_lengths(config)
        yield from _decoder(model, rows, data.row.length, lengths, passes["decoder"], is_reached, tensor)
    if reads_images:
        chunk = min(getattr(config.objective, "chunk", data.row.length), data.row.length)
        yield from _head(model, rows, supervised(data.row), chunk, passes["decoder"], tensor)


def supervised(row: RowConfig) -> int:
    """Targets of a full row: all that is text."""
    return max(row.length - row.vision_tokens * (row.crops if row.vision_tokens_per == "crop" else row.images), 0)


def _connector(
    model: VLMConfig, crops: int, images: int, passes: Passes, trains: dict[str, bool], tensor: int
) -> Iterator[Product]:
    connector, features = model.connector, crops * model.vision.patches
    of_features = passes._replace(inputs=trains["vision"])  # a frozen tower's features need no gradient
    if isinstance(connector, MLPConnectorConfig):
        yield from linear("connector", 1, features, connector.width, connector.out_width, of_features)
        yield from linear("connector", 1, features, connector.out_width, connector.out_width, passes)
        return
    if isinstance(connector, QFormerConfig):
        yield from _qformer(connector, crops, model.vision.features, passes, tensor)
        return
    assert isinstance(connector, ResamplerConfig)
    groups = images if model.token_sampling is TokenSampling.FIXED_SAMPLING else crops
    width, layers = connector.width, connector.layers
    heads, hidden = cut(connector.heads, tensor), cut(connector.hidden, tensor)
    inner, latents = heads * connector.head_width, connector.queries + connector.instruction_tokens
    m = groups * latents
    qkv = passes.again("qkv")
    yield from linear("connector", layers, m, width, inner, passes, qkv)
    yield from linear("connector", layers, features, width, 2 * inner, of_features, qkv)
    yield from linear("connector", layers, m, width, 2 * inner, passes, qkv)
    keys = features // max(groups, 1) + latents
    yield from attention(
        "connector", layers, groups, latents, keys, latents * keys, heads, heads, connector.head_width, passes,
        kernel=connector.attention,
    )  # fmt: skip
    yield from linear("connector", layers, m, inner, width, passes, passes.again("out_proj"))
    yield from linear("connector", layers, m, width, hidden, passes, passes.again("mlp_in"))
    yield from linear("connector", layers, m, hidden, width, passes)
    yield from linear("connector", 1, groups * connector.queries, width, connector.out_width, passes)
    if connector.instruction_tokens:
        prompts = groups * connector.instruction_tokens
        yield from linear("connector", 1, prompts, connector.out_width, width, passes)
        yield from linear("connector", 1, prompts, width, width, passes)


def _qformer(connector: QFormerConfig, crops: int, features: int, passes: Passes, tensor: int) -> Iterator[Product]:
    width, layers, queries = connector.inner, connector.layers, connector.queries
    heads, hidden, readers = (
        cut(connector.heads, tensor),
        cut(connector.hidden, tensor),
        connector.readers,
    )
    head_width, m = width // connector.heads, crops * queries
    inner, qkv = heads * head_width, passes.again("qkv")
    # Weights that are dropped are computed whole, by no kernel.
    kernel = "xla" if connector.dropout else connector.attention
    yield from linear("connector", layers, m, width, 3 * inner, passes, qkv)
    yield from attention(
        "connector", layers, crops, queries, queries, queries**2, heads, heads, head_width, passes, kernel=kernel
    )
    # Of the layers that read features, before which a norm trains.
    yield from linear("connector", readers, m, width, inner, passes, qkv)
    yield from linear("connector", readers, crops * features, connector.width, 2 * inner, passes, qkv)
    yield from attention(
        "connector", readers, crops, queries, features, queries * features, heads, heads, head_width, passes,
        kernel=kernel,
    )  # fmt: skip
    yield from linear("connector", layers + readers, m, inner, width, passes, passes.again("out_proj"))
    yield from linear("connector", layers, m, width, hidden, passes, passes.again("mlp_in"))
    yield from linear("connector", layers, m, hidden, width, passes)
    yield from linear("connector", 1, m, width, connector.out_width, passes)


def _decoder(
    model: VLMConfig, rows: int, length: int, lengths: Int[np.ndarray, " n"], passes: Passes, is_reached: bool,
    tensor: int,
) -> Iterator[Product]:  # fmt: skip
    """lengths: of a row's segments."""
    decoder = model.decoder
    width, head_width, layers, m = decoder.width, decoder.head_width, decoder.layers, rows * length
    heads, kv_heads, hidden = (cut(size, tensor) for size in (decoder.heads, decoder.kv_heads, decoder.hidden))
    qkv = (heads + 2 * kv_heads) * head_width
    yield from linear("decoder", layers, m, width, qkv, passes, passes.again("qkv"))
    pairs = visible_pairs(lengths, decoder)
    yield from attention(
        "attention", layers, rows, length, length, pairs, heads, kv_heads, head_width,
        passes._replace(inputs=is_reached), decoder.sliding_window.left, causal=True, kernel=decoder.attention,
    )  # fmt: skip
    yield from linear("decoder", layers, m, heads * head_width, width, passes, passes.again("out_proj"))
    yield from linear("decoder", layers, m, width, 2 * hidden, passes, passes.again("mlp_in"))
    yield from linear("decoder", layers, m, hidden, width, passes)


def _head(model: VLMConfig, rows: int, targets: int, chunk: int, passes: Passes, tensor: int) -> Iterator[Product]:
    """In whole chunks of a row's targets; logits are float32, and the backward pass computes them again."""
    decoder = model.decoder
    whole, again = -(-targets // chunk) * chunk * rows, int(passes.inputs or passes.weights)
    for columns, needed in (
        (cut(decoder.vocab_size, tensor), decoder.num_text_tokens),
        (decoder.num_extra_tokens, decoder.num_extra_tokens),
    ):
        for product in linear("head", 1, whole, decoder.width, columns, passes, again, LOGIT_BYTES):
            flops = 2 * rows * targets * decoder.width * needed * product.times // tensor
            yield product._replace(flops=flops)
