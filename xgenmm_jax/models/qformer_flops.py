"""Model FLOPs of BLIP-2's Q-Former and of its first stage, counted as `flops.py` counts those of the VLM."""

from jaxtyping import Integer
import numpy as np

from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.flops import attention, linear, vision_flops
from xgenmm_jax.models.qformer import QFormerConfig


def rows_flops(config: QFormerConfig, rows: int, pairs: int) -> float:
    """FLOPs of one pass of so many rows through all layers, without what reads features. pairs: of query and key."""
    inner = config.inner
    layer = rows * (4 * linear(inner, inner) + 2 * linear(inner, config.hidden)) + attention(pairs, inner)
    return config.layers * layer


def cross_flops(config: QFormerConfig, images: int, features: int) -> tuple[float, float]:
    """FLOPs of what reads features in one pass: of the maps whose input they are, and of the rest."""
    inner, readers = config.inner, config.layers // config.cross_every
    maps = readers * images * features * linear(config.width, 2 * inner)
    queries = images * config.queries
    return maps, readers * (2 * queries * linear(inner, inner) + attention(queries * features, inner))


def qformer_flops(config: QFormerConfig, images: int, features: int) -> float:
    """FLOPs of one pass as a connector. features: of each image."""
    queries = images * config.queries
    own = rows_flops(config, queries, queries * config.queries) + sum(cross_flops(config, images, features))
    return own + (queries * linear(config.inner, config.out_width) if config.out_width else 0)


def stage1_flops(model: Blip2Config, lengths: Integer[np.ndarray, " n"], trains_vision: bool) -> float:
    """FLOPs of a training step of the first stage. lengths: tokens of each text; 0 for a row without a pair.

    Passes are those of queries, text, three times as many pairs for matching, and captions behind cached queries.
    """
    config, inner = model.connector, model.connector.inner
    lengths = np.asarray(lengths, np.int64)
    lengths = lengths[lengths > 0]
    images, tokens, squares = len(lengths), int(lengths.sum()), int((lengths**2).sum())
    queries, features = config.queries, model.vision.features
    together = 3 * (images * queries + tokens)
    together_pairs = 3 * int(((lengths + queries) ** 2).sum())
    causal = (squares + tokens) // 2 + tokens * queries
    forward = qformer_flops(config, images, features) + rows_flops(config, tokens, squares)
    forward += rows_flops(config, together, together_pairs) + sum(cross_flops(config, 3 * images, features))
    forward += rows_flops(config, tokens, causal)
    # Heads: vectors and their comparison, matching of each query, words.
    forward += images * (queries + 1) * linear(inner, model.projection)
    forward += images**2 * queries * linear(model.projection, 1) + 3 * images * queries * linear(inner, 2)
    forward += tokens * (linear(inner, inner) + linear(inner, model.text.vocab_size))
    vision = images * vision_flops(model.vision)
    return 3.0 * forward + (3.0 if trains_vision else 1.0) * vision
