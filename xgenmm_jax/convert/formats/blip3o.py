"""BLIP3-o's own parts in its names: the diffusion transformer, the queries and the tower whose features are drawn.

Source: docs/reference/blip3o.md#released-names.
"""

from dataclasses import dataclass

from xgenmm_jax.convert.formats import eva
from xgenmm_jax.convert.formats.llama_hf import SeparateQKV
from xgenmm_jax.convert.rules import Piece, Rule, linear_rules, norm_rules, rule
from xgenmm_jax.convert.tensor_shapes import TensorShapes
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.models.eva import EVAConfig

ROOT = "model."
DIT = "dit.model."
QUERIES = "latent_queries"
TIME = r"time_caption_embed\.timestep_embedder\.linear_1\.weight"
"""The name that tells this family; what stands before it is the prefix of the diffusion transformer."""


@dataclass(frozen=True)
class Blip3oParts:
    """What BLIP3-o has beside its language model. queries, tower: 0 and None where a file has none."""

    dit: DiTConfig
    queries: int = 0
    tower: EVAConfig | None = None


def rules(parts: Blip3oParts, root: str = ROOT) -> tuple[Rule, ...]:
    """All parts. root: what stands before "dit.model."."""
    queries = (rule("drawing/queries", f"{root}{QUERIES}", pattern="1 q h -> q h"),) if parts.queries else ()
    tower = eva.tower_rules(parts.tower, f"{root}{eva.PREFIX}") if parts.tower else ()
    return (*queries, *dit_rules(parts.dit, f"{root}{DIT}"), *tower)


def parts_of(names: TensorShapes, root: str, vision_heads: int | None) -> Blip3oParts:
    """The sizes that a file's tensors have. vision_heads: of a tower whose width is not the released one.

    Raises ValueError where they are those of no such parts.
    """
    dit = dit_config(names, f"{root}{DIT}")
    queries = names.size(0, (f"{root}{QUERIES}", 1))
    tower = f"{root}{eva.PREFIX}"
    has_tower = any(name.startswith(tower) for name in names.shapes)
    return Blip3oParts(dit, queries, eva.tower_config(names, vision_heads, tower) if has_tower else None)


def dit_rules(config: DiTConfig, prefix: str) -> tuple[Rule, ...]:
    """The diffusion transformer."""
    count, heads, patch = config.layers, {"n": config.heads}, {"p": config.patch, "q": config.patch}
    ours, layer = "drawing/dit/layers", f"{prefix}layers.{{i}}"
    time, pooled = (f"{prefix}time_caption_embed.{name}" for name in ("timestep_embedder", "caption_embedder"))
    attention, cross, forward = (f"{layer}.{name}" for name in ("attn1", "attn2", "feed_forward"))
    key_value = tuple(Piece(f"{cross}.to_{name}.weight") for name in "kv")
    return (
        # What goes in: patches, flattened by channel, row and column; the context; time and pooled context.
        rule(
            "drawing/dit/patch_embedding/kernel",
            f"{prefix}patch_embedder.proj.weight",
            pattern="d (c p q) -> p q c d",
            sizes=patch,
        ),
        rule("drawing/dit/patch_embedding/bias", f"{prefix}patch_embedder.proj.bias"),
        *linear_rules("drawing/dit/context_fc1", f"{prefix}caption_projection.linear_1"),
        *linear_rules("drawing/dit/context_fc2", f"{prefix}caption_projection.linear_2"),
        *linear_rules("drawing/dit/time_fc1", f"{time}.linear_1"),
        *linear_rules("drawing/dit/time_fc2", f"{time}.linear_2"),
        *norm_rules("drawing/dit/pooled_norm", f"{pooled}.0"),
        *linear_rules("drawing/dit/pooled_projection", f"{pooled}.1"),
        # Layers: scales and gates, self-attention, cross-attention and the map behind both, feed-forward.
        rule(
            f"{ours}/modulation/kernel",
            f"{layer}.norm1.linear.weight",
            pattern="(four d) c -> c four d",
            sizes={"four": 4},
            layers=count,
        ),
        rule(
            f"{ours}/modulation/bias",
            f"{layer}.norm1.linear.bias",
            pattern="(four d) -> four d",
            sizes={"four": 4},
            layers=count,
        ),
        rule(f"{ours}/attention_norm/scale", f"{layer}.norm1.norm.weight", layers=count),
        rule(f"{ours}/gate", f"{layer}.gate", layers=count),
        Rule(
            f"{ours}/qkv/kernel",
            tuple(Piece(f"{attention}.to_{name}.weight") for name in "qkv"),
            SeparateQKV(config.kv_heads, config.head_width),
            count,
        ),
        *norm_rules(f"{ours}/query_norm", f"{attention}.norm_q", count),
        *norm_rules(f"{ours}/key_norm", f"{attention}.norm_k", count),
        rule(
            f"{ours}/cross_query/kernel", f"{cross}.to_q.weight", pattern="(n h) d -> d n h", sizes=heads, layers=count
        ),
        rule(
            f"{ours}/cross_key_value/kernel",
            *key_value,
            pattern="two (k h) d -> d two k h",
            sizes={"k": config.kv_heads},
            layers=count,
        ),
        *norm_rules(f"{ours}/cross_query_norm", f"{cross}.norm_q", count),
        *norm_rules(f"{ours}/cross_key_norm", f"{cross}.norm_k", count),
        rule(f"{ours}/context_norm/scale", f"{layer}.norm1_context.weight", layers=count),
        rule(f"{ours}/out/kernel", f"{cross}.to_out.0.weight", pattern="d (n h) -> n h d", sizes=heads, layers=count),
        rule(f"{ours}/attention_out_norm/scale", f"{layer}.norm2.weight", layers=count),
        rule(f"{ours}/mlp_norm/scale", f"{layer}.ffn_norm1.weight", layers=count),
        rule(
            f"{ours}/gate_up/kernel",
            f"{forward}.linear_1.weight",
            f"{forward}.linear_3.weight",
            pattern="two f d -> d two f",
            layers=count,
        ),
        rule(f"{ours}/down/kernel", f"{forward}.linear_2.weight", pattern="d f -> f d", layers=count),
        rule(f"{ours}/mlp_out_norm/scale", f"{layer}.ffn_norm2.weight", layers=count),
        # What comes out: patches, flattened by row, column and channel.
        *linear_rules("drawing/dit/out_modulation", f"{prefix}norm_out.linear_1"),
        rule(
            "drawing/dit/out/kernel", f"{prefix}norm_out.linear_2.weight", pattern="(p q c) d -> d p q c", sizes=patch
        ),
        rule("drawing/dit/out/bias", f"{prefix}norm_out.linear_2.bias", pattern="(p q c) -> p q c", sizes=patch),
    )


def dit_config(names: TensorShapes, prefix: str, patch: int = 1) -> DiTConfig:
    """The sizes that a file's tensors have. patch: 1 in every released one; no tensor tells it.

    Raises ValueError where the tensors' widths are those of no diffusion transformer.
    """
    default, layer = DiTConfig(), f"{prefix}layers.0."
    width = names.size(default.width, (f"{prefix}patch_embedder.proj.bias", 0), (f"{layer}norm2.weight", 0))
    heads = names.size(default.heads, (f"{layer}gate", 0))
    key_rows = names.size(width, (f"{layer}attn1.to_k.weight", 0), (f"{layer}attn2.to_k.weight", 0))
    outputs = names.size(default.channels, (f"{prefix}norm_out.linear_2.bias", 0))
    hidden = names.size(default.hidden, (f"{layer}feed_forward.linear_1.weight", 0))
    least = 8 * width // 3
    if width % heads or key_rows % (width // heads) or outputs % patch**2 or hidden < least:
        raise ValueError(
            f"checkpoint: a diffusion transformer of width {width} with {heads} gates a layer has {key_rows} rows of "
            f"to_k, {outputs} outputs for patches of {patch} and a feed-forward of {hidden}; wanted heads that divide "
            f"the width, whole heads of keys, whole channels and at least {least}: copy the file again."
        )
    # Rounded up to 256 wherever that gives the file's feed-forward.
    is_default = -(-least // default.multiple_of) * default.multiple_of == hidden
    return DiTConfig(
        channels=outputs // patch**2,
        width=width,
        layers=names.layers(f"{prefix}layers.", default.layers),
        heads=heads,
        kv_heads=key_rows // (width // heads),
        patch=patch,
        context_width=names.size(default.context_width, (f"{prefix}caption_projection.linear_1.weight", 1)),
        multiple_of=default.multiple_of if is_default else hidden,
    )
