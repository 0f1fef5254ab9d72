"""EVA-CLIP-E's tower in the names of BLIP3-o's file.

Source: docs/reference/blip3o.md#released-names.
"""

from xgenmm_jax.convert.rules import Rule, linear_rules, norm_rules, rule
from xgenmm_jax.convert.tensor_shapes import TensorShapes, head_count, square_grid
from xgenmm_jax.models.eva import EVAConfig

PREFIX = "gen_vision_tower.vision_tower.model."
WIDTH_TO_HEADS = {1792: 16}
"""Of the released tower; tensors do not tell."""


def tower_rules(config: EVAConfig, prefix: str) -> tuple[Rule, ...]:
    """The tower."""
    count, heads = config.layers, {"n": config.heads}
    ours, block, fused = "target/eva/layers", f"{prefix}blocks.{{i}}", {"three": 3, **heads}
    return (
        rule("target/eva/class_embedding", f"{prefix}cls_token", pattern="1 1 e -> e"),
        rule("target/eva/position_embedding", f"{prefix}pos_embed", pattern="1 p e -> p e"),
        rule("target/eva/patch_embedding/kernel", f"{prefix}patch_embed.proj.weight", pattern="e c h w -> h w c e"),
        rule("target/eva/patch_embedding/bias", f"{prefix}patch_embed.proj.bias"),
        rule(
            f"{ours}/attention/qkv/kernel",
            f"{block}.attn.qkv.weight",
            pattern="(three n h) e -> e three n h",
            sizes=fused,
            layers=count,
        ),
        rule(
            f"{ours}/attention/qkv/bias",
            f"{block}.attn.qkv.bias",
            pattern="(three n h) -> three n h",
            sizes=fused,
            layers=count,
        ),
        rule(
            f"{ours}/attention/out/kernel",
            f"{block}.attn.proj.weight",
            pattern="e (n h) -> n h e",
            sizes=heads,
            layers=count,
        ),
        rule(f"{ours}/attention/out/bias", f"{block}.attn.proj.bias", layers=count),
        *norm_rules(f"{ours}/norm1", f"{block}.norm1", count),
        *linear_rules(f"{ours}/mlp/fc1", f"{block}.mlp.fc1", count),
        *linear_rules(f"{ours}/mlp/fc2", f"{block}.mlp.fc2", count),
        *norm_rules(f"{ours}/norm2", f"{block}.norm2", count),
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
