"""SigLIP's vision part in Hugging Face's names: `SiglipVisionModel`, and the tower of xGen-MM v1.5.

Source: docs/reference/checkpoints.md#siglip-names.
"""

from xgenmm_jax.convert.rules import Piece, Rule, linear_rules, norm_rules, rule
from xgenmm_jax.models.vit import ViTConfig

PATCH = "embeddings.patch_embedding.weight"
"""The name that tells this family; what stands before it is the prefix of all its names."""
IGNORED = ("text_model.", "logit_scale", "logit_bias")
"""What stands beside the vision part in a whole SigLIP."""
BUFFER = "embeddings.position_ids"
"""Numbers 0, 1, ... that older versions of transformers wrote into the file."""

WIDTH_TO_HEADS = {768: 12, 1024: 16, 1152: 16}
"""Of the released SigLIPs; tensors do not tell."""


def vision_rules(config: ViTConfig, prefix: str) -> tuple[Rule, ...]:
    """Tower and pooled head. prefix: "vision_model." or "vlm.vision_encoder."."""
    count, heads = config.layers, {"n": config.heads}
    layer, ours = f"{prefix}encoder.layers.{{i}}", "vision/layers"
    attention, head = f"{layer}.self_attn", f"{prefix}head"
    return (
        # Patches and positions.
        rule("vision/patch_embedding/kernel", f"{prefix}{PATCH}", pattern="e c h w -> h w c e"),
        rule("vision/patch_embedding/bias", f"{prefix}embeddings.patch_embedding.bias"),
        rule("vision/position_embedding", f"{prefix}embeddings.position_embedding.weight"),
        rule(
            f"{ours}/attention/qkv/kernel",
            # Three maps there, one with an axis of three here.
            *(f"{attention}.{x}_proj.weight" for x in "qkv"),
            pattern="three (n h) e -> e three n h",
            sizes=heads,
            layers=count,
        ),
        rule(
            f"{ours}/attention/qkv/bias",
            *(f"{attention}.{x}_proj.bias" for x in "qkv"),
            pattern="three (n h) -> three n h",
            sizes=heads,
            layers=count,
        ),
        rule(
            f"{ours}/attention/out/kernel",
            f"{attention}.out_proj.weight",
            pattern="e (n h) -> n h e",
            sizes=heads,
            layers=count,
        ),
        rule(f"{ours}/attention/out/bias", f"{attention}.out_proj.bias", layers=count),
        *norm_rules(f"{ours}/norm1", f"{layer}.layer_norm1", count),
        *linear_rules(f"{ours}/mlp/fc1", f"{layer}.mlp.fc1", count),
        *linear_rules(f"{ours}/mlp/fc2", f"{layer}.mlp.fc2", count),
        *norm_rules(f"{ours}/norm2", f"{layer}.layer_norm2", count),
        # Behind the layers: the norm, and the pooled head, which has one query, the probe.
        *norm_rules("vision/post_norm", f"{prefix}post_layernorm"),
        rule("vision/head/probe", f"{head}.probe", pattern="one q e -> (one q) e", sizes={"one": 1}),
        *fused_attention_rules("vision/head", f"{head}.attention", config.heads),
        *norm_rules("vision/head/norm", f"{head}.layernorm"),
        *linear_rules("vision/head/mlp/fc1", f"{head}.mlp.fc1"),
        *linear_rules("vision/head/mlp/fc2", f"{head}.mlp.fc2"),
    )


def fused_attention_rules(ours: str, theirs: str, heads: int) -> tuple[Rule, ...]:
    """torch's MultiheadAttention as query, key_value and out: its rows are query, key and value below each other."""
    weight, bias, sizes = f"{theirs}.in_proj_weight", f"{theirs}.in_proj_bias", {"n": heads}
    key_value = "two (n h) e -> e two n h"
    return (
        rule(f"{ours}/query/kernel", Piece(weight, 0, 3), pattern="(n h) e -> e n h", sizes=sizes),
        rule(f"{ours}/key_value/kernel", Piece(weight, 1, 3), Piece(weight, 2, 3), pattern=key_value, sizes=sizes),
        rule(f"{ours}/query/bias", Piece(bias, 0, 3), pattern="(n h) -> n h", sizes=sizes),
        rule(
            f"{ours}/key_value/bias",
            Piece(bias, 1, 3),
            Piece(bias, 2, 3),
            pattern="two (n h) -> two n h",
            sizes=sizes,
        ),
        rule(f"{ours}/out/kernel", f"{theirs}.out_proj.weight", pattern="e (n h) -> n h e", sizes=sizes),
        rule(f"{ours}/out/bias", f"{theirs}.out_proj.bias"),
    )
