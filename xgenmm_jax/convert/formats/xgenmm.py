"""xGen-MM v1.5 in its released names: SigLIP, the perceiver resampler, Phi-3 with its additions.

Source: docs/reference/checkpoints.md#tensor-names.
"""

from xgenmm_jax.convert.formats import phi3_hf, siglip_hf
from xgenmm_jax.convert.rules import Rule, linear_rules, norm_rules, rule
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.resampler import ResamplerConfig

PREFIX = "vlm."
"""Before every name of a released folder; training checkpoints lack it."""
VISION, CONNECTOR, DECODER = "vision_encoder.", "vision_tokenizer.", "lang_model."
HEAD_WIDTH = 96
"""Of the resampler, fixed in the official code."""


def rules(config: VLMConfig, prefix: str = PREFIX) -> tuple[Rule, ...]:
    """The whole model, in the order of the official state dict."""
    return (*siglip_hf.vision_rules(config.vision, f"{prefix}{VISION}"), *trained_rules(config, prefix))


def trained_rules(config: VLMConfig, prefix: str = PREFIX) -> tuple[Rule, ...]:
    """All but the tower: what a training checkpoint of the official code holds."""
    if not isinstance(config.connector, ResamplerConfig):
        raise ValueError(
            f"xgenmm: got a {type(config.connector).__name__}, the released layout has only a resampler; train with "
            "one."
        )
    embedding, *decoder = phi3_hf.decoder_rules(config.decoder, f"{prefix}{DECODER}")
    # Behind the embedding, as in the official state dict: shards are then cut where the release's are.
    more_rows, *head = phi3_hf.additional_rules(f"{prefix}{DECODER}")
    connector = connector_rules(config.connector, f"{prefix}{CONNECTOR}")
    return (*connector, embedding, more_rows, *decoder, *head)


def connector_rules(config: ResamplerConfig, prefix: str) -> tuple[Rule, ...]:
    """The resampler. Raises ValueError where it reads instructions, which only v1 did, in another layout."""
    if config.instruction_tokens:
        raise ValueError(
            f"xgenmm: got a resampler with {config.instruction_tokens} instruction tokens, v1.5's has none; set "
            "connector.instruction_tokens to 0."
        )
    count, heads = config.layers, {"n": config.heads}
    ours, attention, forward = "connector/layers", f"{prefix}layers.{{i}}.0", f"{prefix}layers.{{i}}.1"
    key_value = {"two": 2, **heads}
    return (
        rule("connector/latents", f"{prefix}latents"),
        *linear_rules("connector/projection", f"{prefix}projection"),
        *norm_rules(f"{ours}/norm_media", f"{attention}.norm_media", count),
        *norm_rules(f"{ours}/norm_latents", f"{attention}.norm_latents", count),
        # Queries come from the latents, keys and values from both.
        rule(f"{ours}/to_q/kernel", f"{attention}.to_q.weight", pattern="(n h) e -> e n h", sizes=heads, layers=count),
        rule(
            f"{ours}/to_kv/kernel",
            f"{attention}.to_kv.weight",
            pattern="(two n h) e -> e two n h",
            sizes=key_value,
            layers=count,
        ),
        rule(
            f"{ours}/to_out/kernel", f"{attention}.to_out.weight", pattern="e (n h) -> n h e", sizes=heads, layers=count
        ),
        *norm_rules(f"{ours}/norm_ff", f"{forward}.0", count),
        rule(f"{ours}/ff1/kernel", f"{forward}.1.weight", pattern="o i -> i o", layers=count),
        rule(f"{ours}/ff2/kernel", f"{forward}.3.weight", pattern="o i -> i o", layers=count),
        *norm_rules("connector/norm", f"{prefix}norm"),
    )
