"""Model FLOPs of BLIP-2's first stage, counted as `flops.py` counts those of the VLM."""

from jaxtyping import Integer
import numpy as np

from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.flops import cross_flops, linear, qformer_flops, rows_flops, vision_flops


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
    forward += rows_flops(config, together, together_pairs) + cross_flops(config, 3 * images, features)
    forward += rows_flops(config, tokens, causal)
    # Heads: vectors and their comparison, matching of each query, words.
    forward += images * (queries + 1) * linear(inner, model.projection)
    forward += images**2 * queries * linear(model.projection, 1) + 3 * images * queries * linear(inner, 2)
    forward += tokens * (linear(inner, inner) + linear(inner, model.text.vocab_size))
    vision = images * vision_flops(model.vision)
    return 3.0 * forward + (3.0 if trains_vision else 1.0) * vision
