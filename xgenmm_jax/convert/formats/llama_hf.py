"""Llama's shape in Hugging Face's names: `LlamaForCausalLM`, `Qwen2ForCausalLM`.

Source: docs/reference/checkpoints.md#llama-names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import einops
import numpy as np

from xgenmm_jax.convert.formats import phi3_hf
from xgenmm_jax.convert.rules import Piece, Rule, rule
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.rotary import LongContext
from xgenmm_jax.ops.masks import WindowConvention

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
"""By config.json's model_type. Others have the same names of tensors and another arithmetic, Gemma for one."""
QUERY = "self_attn.q_proj.weight"
KEY = "self_attn.k_proj.weight"
HEAD = "lm_head.weight"
NUM_EXTRA_TOKENS = 4
"""`<pad>`, `<image>`, `<image placeholder>`, `<|endofchunk|>`, behind the rows of the embedding."""

INITIALIZED = phi3_hf.INITIALIZED
"""Leaves of xGen-MM that Llama lacks, as Phi-3 does."""


@dataclass(frozen=True)
class SeparateQKV:
    """Rows of q [K G H, ...], k and v [K H, ...] as one [..., K, G + 2, H]: each key-value head behind its queries."""

    kv_heads: int
    head_width: int

    def into(self, parts: Sequence[Any]) -> Any:
        sizes = {"k": self.kv_heads, "h": self.head_width}
        by_head = [einops.rearrange(part, "(k g h) ... -> ... k g h", **sizes) for part in parts]
        return np.concatenate(by_head, axis=-2)

    def back(self, array: Any, count: int) -> list[Any]:
        parts = array[..., :-2, :], array[..., -2:-1, :], array[..., -1:, :]
        return [einops.rearrange(part, "... k g h -> (k g h) ...") for part in parts]


def decoder_rules(config: Phi3Config, prefix: str) -> tuple[Rule, ...]:
    """What the family itself has. prefix: "" or what stands before "model."."""
    count, ours, layer = config.layers, "decoder/layers", f"{prefix}model.layers.{{i}}"
    qkv = SeparateQKV(config.kv_heads, config.head_width)

    def projections(kind: str) -> tuple[Piece, ...]:
        return tuple(Piece(f"{layer}.self_attn.{name}_proj.{kind}") for name in "qkv")

    biases = (Rule(f"{ours}/qkv_proj/bias", projections("bias"), qkv, count),) if config.qkv_bias else ()
    head = () if config.tied_head else (rule("decoder/head_kernel", f"{prefix}{HEAD}", pattern="v d -> d v"),)
    return (
        rule("decoder/embedding", f"{prefix}{phi3_hf.EMBEDDING}"),
        Rule(f"{ours}/qkv_proj/kernel", projections("weight"), qkv, count),
        *biases,
        rule(
            f"{ours}/o_proj/kernel",
            f"{layer}.self_attn.o_proj.weight",
            pattern="d (n h) -> n h d",
            sizes={"n": config.heads},
            layers=count,
        ),
        rule(
            f"{ours}/gate_up_proj/kernel",
            f"{layer}.mlp.gate_proj.weight",
            f"{layer}.mlp.up_proj.weight",
            pattern="two f d -> d two f",
            layers=count,
        ),
        rule(f"{ours}/down_proj/kernel", f"{layer}.mlp.down_proj.weight", pattern="d f -> f d", layers=count),
        rule(f"{ours}/input_norm/scale", f"{layer}.input_layernorm.weight", layers=count),
        rule(f"{ours}/post_attention_norm/scale", f"{layer}.post_attention_layernorm.weight", layers=count),
        rule("decoder/norm/scale", f"{prefix}model.norm.weight"),
        *head,
    )


def config_of(
    settings: Mapping[str, Any], *, vocab_size: int, width: int, hidden: int, layers: int, query_rows: int,
    key_rows: int, heads: int | None, has_head: bool,
) -> Phi3Config:  # fmt: skip
    """The config of a checkpoint. settings: its config.json. heads: of queries, where the caller says it.

    query_rows, key_rows: rows of q_proj and k_proj. has_head: whether lm_head.weight is there.

    Raises ValueError for a config.json of another arithmetic, and where heads do not fit the rows.
    """
    kind = settings.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"checkpoint: its tensors have Llama's names and config.json's model_type is {kind!r}; wanted "
            f"{' or '.join(ARCHITECTURES)}, as others compute otherwise: put its own config.json beside it."
        )
    _check_arithmetic(settings)
    heads = heads or settings.get("num_attention_heads")
    if not heads or query_rows % heads or key_rows % (query_rows // heads):
        raise ValueError(
            f"checkpoint: {heads or 'no number of'} heads for {query_rows} rows of q_proj and {key_rows} of k_proj; "
            "put the config.json of its size beside it, or give --decoder-heads."
        )
    head_dim = query_rows // heads
    default = Phi3Config()
    return Phi3Config(
        vocab_size=vocab_size,
        num_text_tokens=vocab_size,
        num_extra_tokens=NUM_EXTRA_TOKENS,
        width=width,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=key_rows // head_dim,
        rope_theta=float((settings.get("rope_parameters") or settings).get("rope_theta", default.rope_theta)),
        epsilon=settings.get("rms_norm_eps", 1e-6),
        window=WindowConvention.NONE,
        init_std=settings.get("initializer_range", default.init_std),
        head_dim=None if head_dim * heads == width else head_dim,
        long_context=_long_context(settings),
        qkv_bias=kind == "qwen2" or bool(settings.get("attention_bias")),
        tied_head=bool(settings.get("tie_word_embeddings", not has_head)),
    )


def _check_arithmetic(settings: Mapping[str, Any]) -> None:
    activation = settings.get("hidden_act", "silu")
    if activation != "silu":
        raise ValueError(f'checkpoint: config.json: hidden_act is "{activation}"; only "silu" is built.')
    if settings.get("use_sliding_window"):
        raise ValueError("checkpoint: config.json: use_sliding_window of Qwen2, in some layers alone, is not built.")


def _long_context(settings: Mapping[str, Any]) -> LongContext | None:
    scaling = settings.get("rope_scaling") or settings.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    missing = [name for name in names if name not in scaling]
    if kind != "llama3" or missing:
        lacks = f" without {', '.join(missing)}" if kind == "llama3" else ""
        raise ValueError(
            f'checkpoint: config.json: rotary scaling "{kind}"{lacks}; only "default" and "llama3" are built.'
        )
    factor, low, high, length = (scaling[name] for name in names)
    return LongContext(float(factor), float(low), float(high), int(length))


def model_config(config: Phi3Config) -> dict[str, Any]:
    """config.json of `LlamaForCausalLM`, or with biases of `Qwen2ForCausalLM`."""
    kind = "qwen2" if config.qkv_bias else "llama"
    long = config.long_context
    scaling = None if long is None else {
        "rope_type": "llama3",
        "factor": long.factor,
        "low_freq_factor": long.low_frequency,
        "high_freq_factor": long.high_frequency,
        "original_max_position_embeddings": long.trained_length,
    }  # fmt: skip
    length = 4096 if long is None else int(long.trained_length * long.factor)
    return {
        "architectures": [ARCHITECTURES[kind]],
        "attention_dropout": 0.0,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "initializer_range": config.init_std,
        "intermediate_size": config.hidden,
        "max_position_embeddings": length,
        "model_type": kind,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.epsilon,
        "rope_scaling": scaling,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied_head,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
