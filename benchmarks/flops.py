"""Floating-point operations that a training step's real tokens and crops need, by part.

A matrix product of [a b] and [b c] is 2abc. Attention is counted causally: half. The frozen tower runs forward only,
what is trained costs three times its forward, but twice where the resampler reads the tower's features. Padding, and
what is computed again, count 0.
"""

from collections.abc import Sequence

import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig

TRAINED = 3


def step_flops(model: VLMConfig, batches: Sequence[Batch]) -> dict[str, float]:
    """Of one step, averaged over batches (numpy)."""
    totals = [_of_batch(model, batch) for batch in batches]
    return {part: float(np.mean([total[part] for total in totals])) for part in totals[0]}


def _of_batch(model: VLMConfig, batch: Batch) -> dict[str, float]:
    lengths = segment_lengths(batch)
    crops = int((np.asarray(batch.crop_image) >= 0).sum())
    return {
        "vision": crops * tower_flops(model.vision),
        "connector": crops * connector_flops(model.connector, model.vision.patches),
        "decoder": TRAINED * sum(lengths) * 2 * decoder_weights(model.decoder),
        "attention": TRAINED * sum(causal_attention_flops(model.decoder, length) for length in lengths),
        "head": TRAINED * int(np.asarray(batch.loss_mask).sum()) * 2 * model.decoder.width * model.decoder.logits,
    }


def segment_lengths(batch: Batch) -> list[int]:
    """Positions of each sample, vision tokens included."""
    return [int(n) for row in np.asarray(batch.segment_ids) for n in np.bincount(row)[1:] if n]


def tower_flops(vision: ViTConfig) -> float:
    """One crop, forward."""
    patches, width = vision.patches, vision.width
    layer = 2 * patches * (4 * width**2 + 2 * width * vision.hidden) + 4 * patches**2 * width
    return vision.layers * layer + 2 * patches * vision.patch_px**2 * 3 * width


def resampler_flops(connector: ResamplerConfig, patches: int) -> float:
    """One crop, forward."""
    queries, width, inner = connector.queries, connector.width, connector.heads * connector.head_width
    keys = patches + queries
    layer = 2 * queries * (2 * width * inner + 2 * width * connector.hidden) + 2 * keys * width * 2 * inner
    layer += 4 * queries * keys * inner
    return connector.layers * layer + 2 * queries * width * connector.out_width


def connector_flops(connector: ResamplerConfig, patches: int) -> float:
    """One crop, trained: no gradient by the features of the frozen tower."""
    features = connector.layers * 2 * patches * connector.width * 2 * connector.heads * connector.head_width
    return TRAINED * resampler_flops(connector, patches) - features


def decoder_weights(decoder: Phi3Config) -> int:
    """Numbers in the layers' kernels: what a token is multiplied with."""
    attention = decoder.width * decoder.head_width * (2 * decoder.heads + 2 * decoder.kv_heads)
    return decoder.layers * (attention + 3 * decoder.width * decoder.hidden)


def causal_attention_flops(decoder: Phi3Config, length: int) -> float:
    """Forward, all layers: each position attends to those before it and itself, at most a window of them."""
    visible = min(length, decoder.window_size + 1)
    pairs = visible * (visible + 1) / 2 + (length - visible) * visible
    return decoder.layers * 4 * decoder.width * pairs
