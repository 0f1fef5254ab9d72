"""Pre-training of the vision tower: contrast with captions, and a captioning decoder beside it.

Source: SigLIP 2 (arXiv 2502.14786); softmax contrast is CLIP's (arXiv 2103.00020).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.text import caption_tokens
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.flops import attention, linear, vision_flops
from xgenmm_jax.models.layers import Dtype, normalize_pixels
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.models.vit import ViT, ViTConfig
from xgenmm_jax.nano.captioner import Captioner, CaptionerConfig
from xgenmm_jax.nano.text_tower import TextTower, TextTowerConfig, unit_length
from xgenmm_jax.training.objectives import losses
from xgenmm_jax.training.objectives.base import Counts, Objective, Params, Sum
from xgenmm_jax.training.objectives.caption_rows import CaptionBatch, CaptionData, caption_batches


@dataclass(frozen=True)
class TowerConfig:
    """Parts that train together. Only `vision` is used afterwards: its parameters are the VLM's part of that name."""

    vision: ViTConfig
    text: TextTowerConfig
    captioner: CaptionerConfig
    dtype: Dtype = "float32"

    def __post_init__(self):
        if self.text.out_width != self.vision.width:
            raise ValueError(
                f"text.out_width: got {self.text.out_width}, the tower gives {self.vision.width}; make them equal."
            )


@dataclass(frozen=True)
class ContrastCaption(Objective):
    """Weighted sum of both losses, averaged over images.

    contrast: sigmoid is SigLIP's, softmax CLIP's and DFN's. Images that share a caption are no pair in either.
    parallel: share of the captions that are predicted all at once from the image alone (CapPa).
    """

    contrast: Literal["sigmoid", "softmax"] = "sigmoid"
    contrast_weight: float = 1.0
    caption_weight: float = 1.0
    parallel: float = 0.25

    def init(self, model: TowerConfig, key: Array) -> Params:
        return initialize(model, key)

    def loss(
        self,
        model: TowerConfig,
        params: Params,
        reference: Params | None,
        rows: CaptionBatch,
        key: Array,
        freeze: tuple[str, ...],
    ) -> tuple[Sum, dict[str, Sum]]:
        """Contrast is over the images of a micro-batch: accumulation makes it easier, not the same."""
        # Contrast of all images with all captions.
        count = rows.pixels.shape[0]
        is_pair = rows.valid[:, 0]
        pixels = normalize_pixels(rows.pixels, model.dtype, model.vision.pixel_mean, model.vision.pixel_std)
        features, pooled = ViT(model.vision, model.dtype).apply(
            {"params": params["vision"]}, pixels, method="features_and_pooled"
        )
        contrast = TextTower(model.text, model.dtype).apply({"params": params["text"]}, rows.token_ids, rows.valid)
        image = unit_length(pooled)
        contrast_of = losses.sigmoid_contrast if self.contrast == "sigmoid" else losses.softmax_contrast
        ignored = losses.same_captions(rows.token_ids) | ~(is_pair[:, None] & is_pair[None])
        contrast_total = contrast_of(image, contrast.text, contrast.scale, contrast.bias, ignored)

        # Captioning, some captions all at once.
        parallel = jax.random.bernoulli(key, self.parallel, (count,))
        logits = Captioner(model.captioner, model.dtype).apply(
            {"params": params["captioner"]}, features, rows.token_ids, parallel
        )
        log_probs = losses.caption_log_probs(logits, rows.token_ids, rows.valid)
        tokens = jnp.sum(rows.valid).astype(jnp.float32)
        caption_total = -jnp.sum(log_probs)

        images = jnp.sum(is_pair).astype(jnp.float32)
        # Per token, so that a long caption does not count more than its tokens; times images, which the sum is over.
        total = self.contrast_weight * contrast_total
        total += self.caption_weight * caption_total * images / jnp.maximum(tokens, 1)
        similarity = jnp.where(ignored, -2.0, image @ contrast.text.T)
        is_nearest = is_pair & (jnp.argmax(similarity, axis=1) == jnp.arange(count))
        return Sum(total, images), {
            "contrast": Sum(contrast_total, images),
            "caption": Sum(caption_total, tokens),
            "retrieval": Sum(jnp.sum(is_nearest).astype(jnp.float32), images),
        }

    def batches(
        self, model: TowerConfig, data: CaptionData, seed: int, state: State, host_index: int, host_count: int
    ) -> Iterator[tuple[CaptionBatch, list[str], State]]:
        _check(data, model)
        words = caption_tokens.plain(Tokenizer.load(data.tokenizer))
        return caption_batches(data, words, seed, state, host_index, host_count)

    def count(self, rows: CaptionBatch) -> Counts:
        valid = np.asarray(rows.valid)
        return Counts(int(valid[:, 0].sum()), int(valid.sum()), valid.size)

    def flops(
        self, model: TowerConfig, rows: CaptionBatch, freeze: tuple[str, ...], lora: LoRA | None = None
    ) -> float:
        return tower_flops(model, self.parallel, rows)


def initialize(model: TowerConfig, key: Array) -> Params:
    """{vision, text, captioner}, boxed with logical axis names."""
    keys = jax.random.split(key, 3)
    side = model.vision.image_size_px
    pixels = jnp.zeros((1, side, side, 3))
    features = jnp.zeros((1, model.vision.patches, model.vision.width))
    ids = jnp.zeros((1, 1), jnp.int32)
    vision = ViT(model.vision, model.dtype).init(keys[0], pixels, method="features_and_pooled")
    text = TextTower(model.text, model.dtype).init(keys[1], ids, ids == 0)
    captioner = Captioner(model.captioner, model.dtype).init(keys[2], features, ids, jnp.zeros(1, bool))
    return {"vision": vision["params"], "text": text["params"], "captioner": captioner["params"]}


def _check(config: CaptionData, model: TowerConfig) -> None:
    """Raises ValueError where data and model do not fit each other."""
    tokenizer = Tokenizer.load(config.tokenizer)
    rows, positions = model.captioner.vocab_size, model.captioner.max_positions
    if config.image_size_px != model.vision.image_size_px:
        raise ValueError(
            f"data.image_size_px: got {config.image_size_px}, the tower takes {model.vision.image_size_px}; "
            "make them equal."
        )
    if len(tokenizer) > min(rows, model.text.vocab_size):
        raise ValueError(f"captioner.vocab_size: got {rows} for {len(tokenizer)} ids; raise it, and text.vocab_size.")
    if config.tokens > min(positions, model.text.max_positions):
        raise ValueError(f"data.tokens: got {config.tokens}, the model has {positions} positions; lower it.")


def tower_flops(model: TowerConfig, parallel: float, rows: CaptionBatch) -> float:
    """Model FLOPs of a step of the tower's pre-training: tower, text tower, captioner and contrast, all trained.

    parallel: share of the captions that are predicted all at once.
    """
    # Vision: the tower, and the pooling above it.
    lengths = np.sum(rows.valid, axis=1).astype(np.int64)
    images, tokens = len(lengths), int(lengths.sum())
    vision, text, captioner = model.vision, model.text, model.captioner
    pooling = vision.patches * linear(vision.width, 2 * vision.width) + attention(vision.patches, vision.width)
    pooling += 2 * linear(vision.width, vision.width) + 2 * linear(vision.width, vision.hidden)
    if vision.class_token:
        pooling = linear(vision.width, vision.projection)
    # Text tower, of a layer.
    text_layer = tokens * (4 * linear(text.width, text.width) + 2 * linear(text.width, text.hidden))
    text_layer += attention(int((lengths**2).sum()), text.width)
    # Captioner, of a layer.
    causal, whole = int((lengths * (lengths + 1) // 2).sum()), int((lengths**2).sum())
    self_pairs = round(parallel * whole + (1 - parallel) * causal)
    # Six square maps: four of self-attention, query and output of the attention to the image.
    caption_layer = 6 * tokens * linear(captioner.width, captioner.width)
    caption_layer += 2 * tokens * linear(captioner.width, captioner.hidden)
    caption_layer += images * vision.patches * linear(vision.width, 2 * captioner.width)
    caption_layer += attention(self_pairs + tokens * vision.patches, captioner.width)
    # All layers, the maps around them, and the similarities of contrast; backward costs twice the forward.
    forward = images * (vision_flops(vision) + pooling)
    forward += text.layers * text_layer + images * linear(text.width, text.out_width)
    forward += captioner.layers * caption_layer + tokens * linear(captioner.width, captioner.vocab_size)
    forward += images * linear(text.out_width, images)
    return 3.0 * forward
