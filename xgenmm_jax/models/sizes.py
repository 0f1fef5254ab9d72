"""Sizes of the whole model as data: nano and micro for laptops and one GPU, 4b and 14b of the paper.

Source: docs/reference/xgenmm.md#sizes. The vocabulary of nano and micro is that of their tokenizer.
"""

from dataclasses import replace

from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.models.eva import EVAConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.qformer import QFormerConfig, QFormerText
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import CLIP_MEAN, CLIP_STD, ViTConfig

NANO_VISION = ViTConfig(image_size_px=64, patch_px=8, width=96, hidden=384, layers=4, heads=4)
MICRO_VISION = ViTConfig(image_size_px=64, patch_px=8, width=256, hidden=1024, layers=8, heads=8)
SO400M = ViTConfig(remat="full")
"""SigLIP so400m/14 at 384 px."""
DFN_H378 = ViTConfig(
    image_size_px=378,
    width=1280,
    hidden=5120,
    layers=32,
    heads=16,
    activation="quick_gelu",
    epsilon=1e-5,
    class_token=True,
    projection=1024,
    pixel_mean=CLIP_MEAN,
    pixel_std=CLIP_STD,
)
"""DFN's CLIP ViT-H/14 at 378 px: the tower of xGen-MM v1."""

PHI3_MINI = Phi3Config(remat="minimal")
PHI3_MEDIUM = Phi3Config(width=5120, hidden=17920, layers=40, heads=40, kv_heads=10, remat="full")


def nano(vocab_size: int = 1024, num_text_tokens: int = 1012) -> VLMConfig:
    """About 2 million parameters: 64 px views of 8 x 8 patches, 16 vision tokens a crop."""
    return VLMConfig(
        vision=NANO_VISION,
        connector=ResamplerConfig(width=96, layers=3, heads=4, head_width=24, hidden=384, queries=16, out_width=128),
        decoder=nano_decoder(vocab_size, num_text_tokens),
    )


def nano_decoder(vocab_size: int = 1024, num_text_tokens: int = 1012) -> Phi3Config:
    """The language model of nano, for its own pre-training."""
    return Phi3Config(
        vocab_size=vocab_size,
        num_text_tokens=num_text_tokens,
        width=128,
        hidden=352,
        layers=4,
        heads=4,
        kv_heads=2,
        init_std=0.05,
        # Lookups are learned sooner than from 0.05 (docs/log/language_model.md#symbolic-images-teach-lookup).
        embedding_std=1.0,
        # Faster than "none" on two cores (706 against 810 ms for 16 x 256 positions): memory is what it waits for.
        remat="minimal_with_context",
    )


def micro(vocab_size: int = 1024, num_text_tokens: int = 1012) -> VLMConfig:
    """About ten times nano: the same views, 32 vision tokens a crop."""
    return VLMConfig(
        vision=MICRO_VISION,
        connector=ResamplerConfig(width=256, layers=4, heads=8, head_width=32, hidden=1024, queries=32, out_width=384),
        decoder=micro_decoder(vocab_size, num_text_tokens),
    )


def micro_decoder(vocab_size: int = 1024, num_text_tokens: int = 1012) -> Phi3Config:
    """The language model of micro."""
    return Phi3Config(
        vocab_size=vocab_size,
        num_text_tokens=num_text_tokens,
        width=384,
        hidden=1024,
        layers=6,
        heads=6,
        kv_heads=2,
        init_std=0.03,
        embedding_std=1.0,
    )


B4 = VLMConfig(
    vision=SO400M, connector=ResamplerConfig(remat="full"), decoder=PHI3_MINI, max_image_crops=13, dtype="bfloat16"
)
"""so400m and Phi-3-mini, crops as the paper has them; `with_strips` gives the released weights' token sampling."""

B14 = replace(B4, connector=ResamplerConfig(out_width=5120, remat="full"), decoder=PHI3_MEDIUM)
"""so400m and Phi-3-medium; never released."""


def with_strips(config: VLMConfig) -> VLMConfig:
    """Strips, which the released v1.5 instruct weights were trained with (at most 4 crops and the global view)."""
    return replace(config, token_sampling=TokenSampling.STRIPS, max_image_crops=5)


BLIP3O_4B = DiTConfig(remat="full")
"""The released diffusion transformer of BLIP3-o 4B: features of EVA-CLIP-E from states of Qwen2.5-VL-3B."""
BLIP3O_8B = replace(BLIP3O_4B, context_width=3584)
"""That of the 8B, behind Qwen2.5-VL-7B."""
EVA_E = EVAConfig(remat="full")
"""EVA-CLIP-E/14+ at 448 px, whose features both draw."""

EVA_G = ViTConfig(
    image_size_px=224,
    width=1408,
    hidden=6144,
    layers=39,
    heads=16,
    remat="full",
    activation="gelu",
    class_token=True,
    bare=True,
    pixel_mean=CLIP_MEAN,
    pixel_std=CLIP_STD,
)
"""EVA-CLIP-g/14 without its last block: BLIP-2's tower."""
QFORMER_IDS = 2
"""`[CLS]` and `[DEC]`, behind the tokenizer's ids."""
BLIP2_STAGE1 = Blip2Config(
    EVA_G, QFormerConfig(remat="minimal", dropout=0.1), QFormerText(PHI3_MINI.logits + QFORMER_IDS)
)
"""BLIP-2's first stage, on captions in Phi-3's tokens."""
NANO_QFORMER = QFormerConfig(width=96, inner=96, hidden=384, layers=4, heads=4, queries=16, out_width=128)
"""About 0.9 million parameters, as many queries as nano's resampler has."""
BLIP2 = VLMConfig(
    EVA_G,
    QFormerConfig(out_width=PHI3_MINI.width, remat="minimal", dropout=0.1),
    PHI3_MINI,
    token_sampling=TokenSampling.FIXED_RESOLUTION,
    dtype="bfloat16",
)
"""Its second stage before Phi-3-mini."""
