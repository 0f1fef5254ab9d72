"""Model FLOPs of a training step, the numerator of MFU: what the mathematics asks for, not what the chip does.

Counted are the matrix products of decoder, attention, connector, tower and head: a multiplication and addition are 2.
Causal attention counts the pairs of query and key that exist: inside a segment, not later, inside the window. The head
counts at supervised positions, as `losses.token_log_probs` computes it. Not counted: padding positions and padding
crops, rematerialisation, elementwise work, lookups of embeddings, the optimizer.

A part that trains takes three forward passes (its own, the gradient with respect to its inputs, and to its weights); a
frozen part that gradients pass through takes two, any other frozen part one; DPO's reference one more of what it runs.
The connector's maps that read a frozen tower's features take two: the gradient with respect to frozen features is never
computed. docs/pods.md tells what follows for the stages.
"""

from typing import NamedTuple

from jaxtyping import Int
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.dit import TIME_FREQUENCIES, DiTConfig
from xgenmm_jax.models.eva import EVAConfig
from xgenmm_jax.models.lora import LoRA, is_below
from xgenmm_jax.models.mlp_connector import MLPConnectorConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig


class Flops(NamedTuple):
    """FLOPs by part, or how many forward passes each part takes. decoder: its linear maps; attention: the decoder's.

    drawing: what makes features or pixels (`drawing_flops.py`); target: what makes that which it learns to make.
    """

    vision: float
    connector: float
    decoder: float
    attention: float
    head: float
    drawing: float = 0.0
    target: float = 0.0

    @property
    def total(self) -> float:
        return float(sum(self))

    def times(self, other: "Flops") -> "Flops":
        """Part by part."""
        return Flops(*(a * b for a, b in zip(self, other, strict=True)))

    def plus(self, other: "Flops") -> "Flops":
        """Part by part."""
        return Flops(*(a + b for a, b in zip(self, other, strict=True)))


class Workload(NamedTuple):
    """What rows hold, as far as it costs FLOPs."""

    tokens: int
    """Positions that are not padding."""
    pairs: int
    """Pairs of query and key that the decoder's attention computes."""
    supervised: int
    """Targets of the loss."""
    crops: int
    """Crops that are not padding."""
    images: int


def workload_of(batch: Batch, model: VLMConfig) -> Workload:
    """Counts packed rows (numpy).

    Example: a row with segments 1 1 1 2 2 0 holds 5 tokens and 3 * 4 / 2 + 2 * 3 / 2 = 9 pairs.
    """
    segments = np.asarray(batch.segment_ids, np.int64)
    rows, length = segments.shape
    # Every (row, segment) a number of its own.
    numbers = (segments + np.arange(rows)[:, None] * (length + 1))[segments > 0]
    lengths = np.unique(numbers, return_counts=True)[1]
    shown = np.asarray(batch.crop_image)
    images = np.unique((shown + np.arange(rows)[:, None] * shown.shape[1])[shown >= 0])
    return Workload(
        tokens=int(lengths.sum()),
        pairs=visible_pairs(lengths, model.decoder),
        supervised=int(np.sum(batch.loss_mask)),
        crops=int((shown >= 0).sum()),
        images=len(images),
    )


def visible_pairs(lengths: Int[np.ndarray, " n"], decoder: Phi3Config) -> int:
    """Pairs of query and key inside causal segments of these lengths, within the window."""
    lengths = np.asarray(lengths, np.int64)
    left = decoder.sliding_window.left
    most = lengths if left is None else np.minimum(lengths, left + 1)
    return int((most * (most + 1) // 2 + (lengths - most) * most).sum())


def forward_flops(model: VLMConfig, work: Workload) -> Flops:
    """FLOPs of one forward pass over what the rows hold."""
    decoder = model.decoder
    attention_width = decoder.heads * decoder.head_width
    per_token = linear(decoder.width, attention_width + 2 * decoder.kv_heads * decoder.head_width)
    per_token += linear(attention_width, decoder.width) + 3 * linear(decoder.width, decoder.hidden)
    return Flops(
        vision=work.crops * vision_flops(model.vision),
        connector=_connector_flops(model, work),
        decoder=decoder.layers * work.tokens * per_token,
        attention=decoder.layers * attention(work.pairs, attention_width),
        head=work.supervised * linear(decoder.width, decoder.logits),
    )


def linear(inputs: int, outputs: int) -> int:
    """FLOPs of a linear map of one vector."""
    return 2 * inputs * outputs


def attention(pairs: int, width: int) -> int:
    """FLOPs of scores and of their product with the values; width: of all heads together."""
    return 4 * pairs * width


def vision_flops(config: ViTConfig | EVAConfig) -> int:
    """FLOPs of one crop through the tower, without its pooling head, which the model does not run."""
    width, tokens = config.width, config.patches + config.class_token
    layer = tokens * (4 * linear(width, width) + 2 * linear(width, config.hidden)) + attention(tokens**2, width)
    return config.patches * linear(3 * config.patch_px**2, width) + config.layers * layer


def _connector_flops(model: VLMConfig, work: Workload) -> int:
    connector, patches = model.connector, model.vision.patches
    if isinstance(connector, MLPConnectorConfig):
        widths = linear(connector.width, connector.out_width) + linear(connector.out_width, connector.out_width)
        return work.crops * patches * widths
    if isinstance(connector, QFormerConfig):
        return qformer_flops(connector, work.crops, model.vision.features)
    groups = work.images if model.token_sampling is TokenSampling.FIXED_SAMPLING else work.crops
    return resampler_flops(connector, groups, work.crops * patches)


def resampler_flops(config: ResamplerConfig, groups: int, features: int) -> int:
    """FLOPs of one pass. groups: sets of queries. features: of all groups together."""
    width, inner = config.width, config.heads * config.head_width
    latents = config.queries + config.instruction_tokens
    queries, keys = groups * latents, features + groups * latents
    layer = queries * (2 * linear(width, inner) + 2 * linear(width, config.hidden))
    layer += keys * linear(width, 2 * inner) + attention(latents * keys, inner)
    flops = config.layers * layer + groups * config.queries * linear(width, config.out_width)
    instruction = linear(config.out_width, width) + linear(width, width)
    return flops + groups * config.instruction_tokens * instruction


def rows_flops(config: QFormerConfig, rows: int, pairs: int) -> int:
    """FLOPs of one pass of so many rows through all layers, without what reads features. pairs: of query and key."""
    inner = config.inner
    layer = rows * (4 * linear(inner, inner) + 2 * linear(inner, config.hidden)) + attention(pairs, inner)
    return config.layers * layer


def cross_flops(config: QFormerConfig, images: int, features: int) -> int:
    """FLOPs of what reads features in one pass. features: of each image."""
    inner, readers = config.inner, config.readers
    queries = images * config.queries
    layer = images * features * linear(config.width, 2 * inner)
    return readers * (layer + 2 * queries * linear(inner, inner) + attention(queries * features, inner))


def qformer_flops(config: QFormerConfig, images: int, features: int) -> int:
    """FLOPs of one pass as a connector. features: of each image."""
    queries = images * config.queries
    flops = rows_flops(config, queries, queries * config.queries) + cross_flops(config, images, features)
    return flops + (queries * linear(config.inner, config.out_width) if config.out_width else 0)


def dit_flops(config: DiTConfig, height: int, width: int, context: int) -> int:
    """FLOPs of one pass of the diffusion transformer over height x width cells, with so many states as context."""
    rows, columns = config.grid(height, width)
    tokens, inner, condition = rows * columns, config.width, config.condition_width
    patch, key_value = config.patch**2 * config.channels, 2 * config.kv_heads * config.head_width
    # Queries twice, for either attention, and the map behind both; keys and values of the tokens, of the context.
    layer = tokens * (3 * linear(inner, inner) + linear(inner, key_value) + 3 * linear(inner, config.hidden))
    layer += context * linear(inner, key_value) + attention(tokens * (tokens + context), inner)
    layer += linear(condition, 4 * inner)
    once = linear(2 * TIME_FREQUENCIES, condition) + linear(condition, condition) + 2 * linear(inner, condition)
    projection = linear(config.context_width, inner) + linear(inner, inner)
    return config.layers * layer + once + context * projection + 2 * tokens * linear(patch, inner)


def model_flops(
    model: VLMConfig, work: Workload, freeze: tuple[str, ...], reference: bool, lora: LoRA | None = None
) -> Flops:
    """FLOPs of a training step. freeze: parts without gradients. reference: whether DPO's runs beside.

    lora: a part that has updates alone gives no gradient of its own weights; products with the updates (below 1 % at
    rank 16 of width 3072) are not counted.
    """
    flops = forward_flops(model, work).times(passes(freeze, reference, lora))
    trains_features = "connector" not in freeze and (lora is None or any(is_below(t, "connector") for t in lora.whole))
    if "vision" in freeze and trains_features:
        return flops._replace(connector=flops.connector - features_flops(model, work))
    return flops


def features_flops(model: VLMConfig, work: Workload) -> int:
    """FLOPs of one pass of the connector's maps whose input is the tower's features."""
    connector = model.connector
    if isinstance(connector, QFormerConfig):
        return 0  # a norm stands before them, which trains
    if isinstance(connector, MLPConnectorConfig):
        per_feature = linear(connector.width, connector.out_width)
    else:
        per_feature = connector.layers * linear(connector.width, 2 * connector.heads * connector.head_width)
    return work.crops * model.vision.patches * per_feature


class Training(NamedTuple):
    """What trains of a part: its own weights, or at least low-rank updates of them."""

    whole: bool
    at_all: bool


def trained_parts(freeze: tuple[str, ...], lora: LoRA | None) -> dict[str, Training]:
    """By part, in the order of the forward pass. One that `freeze` or `lora.whole` names only in pieces is whole."""
    parts = {}
    for part in ("vision", "connector", "decoder"):
        whole = part not in freeze and (lora is None or any(is_below(name, part) for name in lora.whole))
        parts[part] = Training(whole, whole or lora is not None and any(is_below(t, part) for t in lora.targets))
    return parts


def passes(freeze: tuple[str, ...], reference: bool, lora: LoRA | None = None) -> Flops:
    """How many forward passes each part takes. A part that `freeze` names only in pieces counts as trained."""
    reached = False  # whether gradients must go through a part to one before it
    count, training = {}, trained_parts(freeze, lora)
    for part, trains in training.items():
        count[part] = 1 + trains.whole + (trains.at_all or reached)
        reached = reached or trains.at_all
    inner = 3 if reached else 1  # attention has no weights: both its products are differentiated, or none
    again = int(reference)  # a frozen connector's tokens serve policy and reference
    return Flops(
        vision=count["vision"],
        connector=count["connector"] + (again if training["connector"].at_all else 0),
        decoder=count["decoder"] + again,
        attention=inner + again,
        head=count["decoder"] + again,
    )
