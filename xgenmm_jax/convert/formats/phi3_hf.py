"""Phi-3 in Hugging Face's names: `Phi3ForCausalLM`, and the language model of xGen-MM v1.5.

Source: docs/reference/checkpoints.md#phi-3-names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import einops
import numpy as np

from xgenmm_jax.convert.rules import Piece, Rule, rule
from xgenmm_jax.models.phi3 import Phi3Config

EMBEDDING = "model.embed_tokens.weight"
QKV = "self_attn.qkv_proj.weight"
ADDITIONAL = "model.embed_tokens.additional_embedding.weight"
IGNORED_ENDING = "rotary_emb.inv_freq"
"""A buffer that older versions of transformers wrote into the file."""

WIDTH_TO_HEADS = {3072: 32, 5120: 40}
"""Of Phi-3 mini and medium; tensors do not tell."""
RELEASED_IDS = {32064: 32012}
"""Rows of the embedding to the number of ids that the tokenizer uses."""

HEAD_BIAS = "decoder/head_bias"
INITIALIZED = (
    "decoder/additional_embedding",
    HEAD_BIAS,
    "decoder/additional_head_kernel",
    "decoder/additional_head_bias",
)
"""Leaves of xGen-MM that Phi-3 lacks: `importing.initial_leaf` gives them."""


@dataclass(frozen=True)
class GroupedQKV:
    """Rows q, k, v below each other, [(N + 2 K) H, D], as [D, K, G + 2, H]: each key-value head behind its queries."""

    heads: int
    kv_heads: int

    def into(self, parts: Sequence[Any]) -> Any:
        (fused,) = parts
        if self.heads == self.kv_heads:
            # Phi-3 mini: a view, no copy.
            return einops.rearrange(fused, "(three k h) d -> d k three h", three=3, k=self.kv_heads)
        by_head = einops.rearrange(fused, "(r h) d -> r h d", r=self.heads + 2 * self.kv_heads)
        return einops.rearrange(by_head[self._order()], "(k r) h d -> d k r h", k=self.kv_heads)

    def back(self, array: Any, count: int) -> list[Any]:
        if self.heads == self.kv_heads:
            return [einops.rearrange(array, "d k three h -> (three k h) d")]
        by_head = einops.rearrange(array, "d k r h -> (k r) h d")
        return [einops.rearrange(by_head[np.argsort(self._order())], "r h d -> (r h) d")]

    def _order(self) -> np.ndarray:
        """For each of our rows of heads, its place in theirs; heads 4, kv_heads 2: q0 q1 k0 v0 q2 q3 k1 v1."""
        group = self.heads // self.kv_heads
        query = np.arange(self.heads).reshape(self.kv_heads, group)
        key_value = self.heads + np.arange(2 * self.kv_heads).reshape(2, self.kv_heads).T
        return np.concatenate([query, key_value], axis=1).reshape(-1)


def decoder_rules(config: Phi3Config, prefix: str) -> tuple[Rule, ...]:
    """What Phi-3 itself has. prefix: "" or "vlm.lang_model."."""
    count, ours, layer = config.layers, "decoder/layers", f"{prefix}model.layers.{{i}}"
    heads = {"n": config.heads}
    return (
        rule("decoder/embedding", f"{prefix}{EMBEDDING}"),
        rule(
            f"{ours}/o_proj/kernel",
            f"{layer}.self_attn.o_proj.weight",
            pattern="d (n h) -> n h d",
            sizes=heads,
            layers=count,
        ),
        Rule(
            f"{ours}/qkv_proj/kernel", (Piece(f"{layer}.{QKV}"),), GroupedQKV(config.heads, config.kv_heads), count
        ),
        rule(
            f"{ours}/gate_up_proj/kernel",
            f"{layer}.mlp.gate_up_proj.weight",
            pattern="(two f) d -> d two f",
            sizes={"two": 2},
            layers=count,
        ),
        rule(f"{ours}/down_proj/kernel", f"{layer}.mlp.down_proj.weight", pattern="d f -> f d", layers=count),
        rule(f"{ours}/input_norm/scale", f"{layer}.input_layernorm.weight", layers=count),
        rule(f"{ours}/post_attention_norm/scale", f"{layer}.post_attention_layernorm.weight", layers=count),
        rule("decoder/norm/scale", f"{prefix}model.norm.weight"),
        rule("decoder/head_kernel", f"{prefix}lm_head.weight", pattern="v d -> d v"),
    )


def additional_rules(prefix: str) -> tuple[Rule, ...]:
    """What xGen-MM adds to Phi-3: a bias of the head, and rows and columns for its own ids."""
    head = f"{prefix}lm_head"
    return (
        rule("decoder/additional_embedding", f"{prefix}{ADDITIONAL}"),
        rule(HEAD_BIAS, f"{head}.bias"),
        rule("decoder/additional_head_kernel", f"{head}.additional_fc.weight", pattern="v d -> d v"),
        rule("decoder/additional_head_bias", f"{head}.additional_fc.bias"),
    )
