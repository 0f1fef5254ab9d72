"""BLIP-2's tower, Q-Former and heads in the names of LAVIS and of transformers.

Source: docs/reference/blip2.md#checkpoint-names.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from xgenmm_jax.convert.formats import eva
from xgenmm_jax.convert.rules import Piece, Rule, linear_rules, norm_rules, rule
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.models.vit import ViTConfig

Names = Literal["lavis", "transformers"]

WIDTH_TO_HEADS = {768: 12}
"""Of the released Q-Former's inner width; tensors do not tell."""
TOWER_WIDTH_TO_HEADS = {1408: 16}
BUFFER = "embeddings.position_ids"
"""Numbers 0, 1, ... that LAVIS' files hold."""
WORDS = {
    "lavis": "Qformer.bert.embeddings.word_embeddings.weight",
    "transformers": "embeddings.word_embeddings.weight",
}
POSITIONS = {name: words.replace("word_", "position_") for name, words in WORDS.items()}
PROJECTIONS = {"lavis": ("vision_proj", "text_proj"), "transformers": ("vision_projection", "text_projection")}
LAYER = {"lavis": "Qformer.bert.encoder.layer.", "transformers": "qformer.encoder.layer."}
MAPS = {"lavis": "self", "transformers": "attention"}
"""What stands in the names between an attention and its query, key and value."""
FEATURE_NORM = {"lavis": "ln_vision", "transformers": "vision_model.post_layernorm"}
TOWER = {"lavis": "visual_encoder.", "transformers": "vision_model."}
HEAD = "Qformer.cls.predictions."
MAP = "language_projection"
MAPS_TO_LANGUAGE_MODELS = ("opt_proj", "t5_proj", MAP)


@dataclass(frozen=True)
class Blip2Parts:
    """What a BLIP-2 has beside its language model, after the second stage."""

    vision: ViTConfig
    connector: QFormerConfig


@dataclass(frozen=True)
class Copies:
    """One leaf that stands several times in a file, under as many names."""

    def into(self, parts: Sequence[Any]) -> Any:
        """Raises ValueError where they differ."""
        if not all(np.array_equal(parts[0], part) for part in parts[1:]):
            raise ValueError(
                "checkpoint: the language head's table or bias differs from the one that it shares; it was trained "
                "apart, which is not built: copy the file again, or tie them."
            )
        return parts[0]

    def back(self, array: Any, count: int) -> list[Any]:
        return [array] * count


@dataclass(frozen=True)
class NoKeyBias:
    """Biases [3 N H] of queries, keys and values from those [N H] of queries and values.

    A bias of the keys adds the same to all scores of a query: it changes nothing, and exporting leaves it out.
    """

    heads: int

    def into(self, parts: Sequence[Any]) -> Any:
        query, value = (np.asarray(part).reshape(self.heads, -1) for part in parts)
        return np.stack([query, np.zeros_like(query), value])

    def back(self, array: Any, count: int) -> list[Any]:
        return [array[0].reshape(-1), array[2].reshape(-1)]


def stage1_rules(config: Blip2Config, names: Names) -> tuple[Rule, ...]:
    """Tower, Q-Former with text, projections and matching head; of LAVIS' the temperature and language head too."""
    rules = [
        *tower_rules(config.vision, names),
        *connector_rules(config.connector, names),
        *text_rules(config.connector, names),
        rule("text/text_position_embedding", POSITIONS[names]),
    ]
    images, texts = PROJECTIONS[names]
    heads = (("image_projection", images), ("text_projection", texts), ("matching", "itm_head"))
    for ours, theirs in heads:
        rules += linear_rules(f"heads/{ours}", theirs)
    if names == "transformers":
        return (*rules, rule("text/text_embedding", WORDS[names]))
    table, bias = (WORDS[names], f"{HEAD}decoder.weight"), (f"{HEAD}decoder.bias", f"{HEAD}bias")
    return (
        *rules,
        rule("heads/temperature", "temp"),
        *linear_rules("heads/word_dense", f"{HEAD}transform.dense"),
        *norm_rules("heads/word_norm", f"{HEAD}transform.LayerNorm"),
        Rule("text/text_embedding", tuple(map(Piece, table)), Copies()),
        Rule("heads/word_bias", tuple(map(Piece, bias)), Copies()),
    )


def parts_rules(parts: Blip2Parts, names: Names = "transformers", language_map: str = MAP) -> tuple[Rule, ...]:
    """Tower, Q-Former and the map to the language model, which LAVIS calls by the model."""
    return (
        *tower_rules(parts.vision, names),
        *connector_rules(parts.connector, names),
        *linear_rules("connector/projection", language_map),
    )


def tower_rules(config: ViTConfig, names: Names) -> tuple[Rule, ...]:
    """EVA-CLIP-g. Raises ValueError for a tower of another form."""
    if not config.bare:
        raise ValueError("export: the layout's tower is EVA-CLIP-g's form (vision.bare), the model has another.")
    if names == "transformers":
        return eva.tower_rules(config, TOWER[names], names, "vision")
    rules = eva.tower_rules(config, TOWER[names], "timm", "vision")
    return tuple(_without_key_bias(one, config.heads) if one.ours.endswith("/qkv/bias") else one for one in rules)


def _without_key_bias(one: Rule, heads: int) -> Rule:
    (piece,) = one.theirs
    return replace(
        one,
        theirs=tuple(Piece(piece.name.replace("qkv.bias", f"{part}_bias")) for part in "qv"),
        transform=NoKeyBias(heads),
    )


def connector_rules(config: QFormerConfig, names: Names) -> tuple[Rule, ...]:
    """Queries, norms and layers, without text and map."""
    norm = "Qformer.bert.embeddings.LayerNorm" if names == "lavis" else "qformer.layernorm"
    rules = [
        rule("connector/query_embedding", "query_tokens", pattern="1 q d -> q d"),
        *norm_rules("connector/feature_norm", FEATURE_NORM[names]),
        *norm_rules("connector/norm", norm),
    ]
    for stack in _stacks(config):
        rules += _layer_rules(config, names, stack)
    return tuple(rules)


class _Stack(NamedTuple):
    """The layers of one place in their groups: which of a group, in which of our stacks, which of theirs."""

    number: int
    name: str
    count: int
    first: int
    every: int


def _stacks(config: QFormerConfig) -> list[_Stack]:
    every, groups = config.cross_every, config.groups
    whole = [_Stack(number, "layers", groups, number, every) for number in range(every)]
    left = range(config.layers % every)
    return whole + [_Stack(number, "last_layers", 1, groups * every + number, 1) for number in left]


def _layer_rules(config: QFormerConfig, names: Names, stack: _Stack) -> list[Rule]:
    """Of one place in a group; the first reads features."""
    number, count, heads = stack.number, stack.count, {"n": config.heads}
    ours, layer = f"connector/{stack.name}/layer{number}", f"{LAYER[names]}{{i}}"
    attention, cross = (f"{layer}.{kind}.{MAPS[names]}" for kind in ("attention", "crossattention"))

    def fused(path: str, theirs: str, parts: tuple[str, ...]) -> list[Rule]:
        """Maps of theirs stacked in one of ours, weights and biases."""
        stacked, leading = ("parts ", " parts") if len(parts) > 1 else ("", "")
        sizes = heads | ({"parts": len(parts)} if len(parts) > 1 else {})
        weights = (f"{theirs}.{part}.weight" for part in parts)
        biases = (f"{theirs}.{part}.bias" for part in parts)
        return [
            rule(f"{path}/kernel", *weights, pattern=f"{stacked}(n h) e -> e{leading} n h", sizes=sizes, layers=count),
            rule(f"{path}/bias", *biases, pattern=f"{stacked}(n h) -> {stacked}n h", sizes=sizes, layers=count),
        ]

    def out(path: str, theirs: str) -> list[Rule]:
        """The map behind an attention and the norm behind that."""
        pattern = "e (n h) -> n h e"
        return [
            rule(f"{path}/out/kernel", f"{theirs}.dense.weight", pattern=pattern, sizes=heads, layers=count),
            rule(f"{path}/out/bias", f"{theirs}.dense.bias", layers=count),
            *norm_rules(f"{path}_norm", f"{theirs}.LayerNorm", count),
        ]

    rules = fused(f"{ours}/attention/qkv", attention, ("query", "key", "value"))
    rules += out(f"{ours}/attention", f"{layer}.attention.output")
    if number == 0:
        rules += fused(f"{ours}/cross/query", cross, ("query",))
        rules += fused(f"{ours}/cross/key_value", cross, ("key", "value"))
        rules += out(f"{ours}/cross", f"{layer}.crossattention.output")
    rules += _forward_rules(f"{ours}/mlp", layer, "_query", count)
    return [replace(one, first=stack.first, every=stack.every) for one in rules]


def text_rules(config: QFormerConfig, names: Names) -> list[Rule]:
    """The feed-forwards of text rows."""
    rules = []
    for stack in _stacks(config):
        ours = f"text/{stack.name}/layer{stack.number}/text_mlp"
        forward = _forward_rules(ours, f"{LAYER[names]}{{i}}", "", stack.count)
        rules += [replace(one, first=stack.first, every=stack.every) for one in forward]
    return rules


def _forward_rules(ours: str, layer: str, kind: str, count: int) -> list[Rule]:
    return [
        *linear_rules(f"{ours}/fc1", f"{layer}.intermediate{kind}.dense", count),
        *linear_rules(f"{ours}/fc2", f"{layer}.output{kind}.dense", count),
        *norm_rules(f"{ours}/norm", f"{layer}.output{kind}.LayerNorm", count),
    ]
