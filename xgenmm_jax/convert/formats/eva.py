"""Towers of EVA-CLIP's form in the names of their files: EVA-CLIP-E of BLIP3-o, EVA-CLIP-g of BLIP-2.

Source: docs/reference/blip3o.md#released-names, docs/reference/blip2.md#checkpoint-names.
"""

from typing import Literal

from xgenmm_jax.convert.rules import Rule, linear_rules, norm_rules, rule
from xgenmm_jax.convert.tensor_shapes import TensorShapes, head_count, square_grid
from xgenmm_jax.models.eva import EVAConfig
from xgenmm_jax.models.vit import ViTConfig

PREFIX = "gen_vision_tower.vision_tower.model."
WIDTH_TO_HEADS = {1792: 16}
"""Of the released tower; tensors do not tell."""
EMBEDDINGS = {
    "timm": ("cls_token", "pos_embed", "patch_embed.proj"),
    "transformers": ("embeddings.class_embedding", "embeddings.position_embedding", "embeddings.patch_embedding"),
}
"""Class token, positions, map of the patches."""
LAYER = {
    "timm": ("blocks.{i}", "attn", "proj", "norm"),
    "transformers": ("encoder.layers.{i}", "self_attn", "projection", "layer_norm"),
}
"""A layer, in it the attention, in that the map behind it; the norms, which have numbers."""


def tower_rules(
    config: EVAConfig | ViTConfig,
    prefix: str,
    names: Literal["timm", "transformers"] = "timm",
    ours: str = "target/eva",
) -> tuple[Rule, ...]:
    """A bare tower. prefix: what stands before its names. ours: where its parameters are."""
    count, heads, fused = config.layers, {"n": config.heads}, {"three": 3, "n": config.heads}
    first, positions, patches = (f"{prefix}{name}" for name in EMBEDDINGS[names])
    layer, attention, out, norm = LAYER[names]
    layers, block = f"{ours}/layers", f"{prefix}{layer}"
    attention = f"{block}.{attention}"
    return (
        # Patches and positions, then the layers.
        rule(f"{ours}/class_embedding", first, pattern="1 1 e -> e"),
        rule(f"{ours}/position_embedding", positions, pattern="1 p e -> p e"),
        rule(f"{ours}/patch_embedding/kernel", f"{patches}.weight", pattern="e c h w -> h w c e"),
        rule(f"{ours}/patch_embedding/bias", f"{patches}.bias"),
        *norm_rules(f"{layers}/norm1", f"{block}.{norm}1", count),
        rule(
            f"{layers}/attention/qkv/kernel",
            f"{attention}.qkv.weight",
            pattern="(three n h) e -> e three n h",
            sizes=fused,
            layers=count,
        ),
        rule(
            f"{layers}/attention/qkv/bias",
            f"{attention}.qkv.bias",
            pattern="(three n h) -> three n h",
            sizes=fused,
            layers=count,
        ),
        rule(
            f"{layers}/attention/out/kernel",
            f"{attention}.{out}.weight",
            pattern="e (n h) -> n h e",
            sizes=heads,
            layers=count,
        ),
        rule(f"{layers}/attention/out/bias", f"{attention}.{out}.bias", layers=count),
        *norm_rules(f"{layers}/norm2", f"{block}.{norm}2", count),
        *linear_rules(f"{layers}/mlp/fc1", f"{block}.mlp.fc1", count),
        *linear_rules(f"{layers}/mlp/fc2", f"{block}.mlp.fc2", count),
    )


def tower_config(names: TensorShapes, heads: int | None, prefix: str) -> EVAConfig:
    """The sizes that a file's tensors have. heads: where the width is not the released one.

    Raises ValueError where nothing tells the number of heads, and for patches that form no square.
    """
    default, position = EVAConfig(), f"{prefix}pos_embed"
    width = names.size(default.width, (position, 2), (f"{prefix}cls_token", 2))
    patch_px = names.size(default.patch_px, (f"{prefix}patch_embed.proj.weight", 2))
    return EVAConfig(
        image_size_px=patch_px * square_grid(names.size(default.patches + 1, (position, 1)) - 1),
        patch_px=patch_px,
        width=width,
        hidden=names.size(default.hidden, (f"{prefix}blocks.0.mlp.fc1.bias", 0)),
        layers=names.layers(f"{prefix}blocks.", default.layers),
        heads=head_count(width, heads, {}, WIDTH_TO_HEADS, "--vision-heads"),
    )
