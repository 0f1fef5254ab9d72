"""A CLIP vision transformer in open_clip's names, as DFN's ViT-H/14 at 378 px: class token, pre-norm, projection."""

from xgenmm_jax.convert.rules import Rule, linear_rules, norm_rules, rule
from xgenmm_jax.models.vit import ViTConfig

PREFIX = "visual."
CLASS = "class_embedding"
WIDTH_TO_HEADS = {768: 12, 1024: 16, 1280: 16}
"""Of ViT-B, L and H; tensors do not tell."""
HEAD_WIDTH = 64
"""open_clip's default."""
EPSILON = 1e-5


def vision_rules(config: ViTConfig, prefix: str = PREFIX) -> tuple[Rule, ...]:
    """The tower. prefix: "visual.", or "" where it was saved alone."""
    count, heads = config.layers, {"n": config.heads}
    fused = {"three": 3, **heads}
    block, ours = f"{prefix}transformer.resblocks.{{i}}", "vision/layers"
    return (
        # Class token, positions, the projection of the pooled token, patches.
        rule("vision/class_embedding", f"{prefix}{CLASS}"),
        rule("vision/position_embedding", f"{prefix}positional_embedding"),
        rule("vision/projection/kernel", f"{prefix}proj"),
        rule("vision/patch_embedding/kernel", f"{prefix}conv1.weight", pattern="e c h w -> h w c e"),
        *norm_rules("vision/pre_norm", f"{prefix}ln_pre"),
        *norm_rules(f"{ours}/norm1", f"{block}.ln_1", count),
        rule(
            f"{ours}/attention/qkv/kernel",
            # Queries, keys and values are one map there too.
            f"{block}.attn.in_proj_weight",
            pattern="(three n h) e -> e three n h",
            sizes=fused,
            layers=count,
        ),
        rule(
            f"{ours}/attention/qkv/bias",
            f"{block}.attn.in_proj_bias",
            pattern="(three n h) -> three n h",
            sizes=fused,
            layers=count,
        ),
        rule(
            f"{ours}/attention/out/kernel",
            f"{block}.attn.out_proj.weight",
            pattern="e (n h) -> n h e",
            sizes=heads,
            layers=count,
        ),
        rule(f"{ours}/attention/out/bias", f"{block}.attn.out_proj.bias", layers=count),
        *norm_rules(f"{ours}/norm2", f"{block}.ln_2", count),
        *linear_rules(f"{ours}/mlp/fc1", f"{block}.mlp.c_fc", count),
        *linear_rules(f"{ours}/mlp/fc2", f"{block}.mlp.c_proj", count),
        *norm_rules("vision/post_norm", f"{prefix}ln_post"),
    )
