"""BERT as what BLIP-2's Q-Former begins with: attention, text, language head; its feed-forwards stand for queries too.

Source: docs/reference/blip2.md#q-former and docs/reference/blip2.md#berts-names.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
import zlib

import numpy as np

from xgenmm_jax.convert.formats import blip2
from xgenmm_jax.convert.rules import Piece, Rule, linear_rules, norm_rules, rule
from xgenmm_jax.models.qformer import QFormerConfig, QFormerText

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
LAYER = "encoder.layer."
ROOT = "bert."
HEAD = "cls.predictions."
OLD_NORMS = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
"""As the released file has them."""
LACKED = ("query_embedding", "feature_norm", "cross", "cross_norm")
"""What of a Q-Former BERT has not: parts of our paths."""
_LAVIS_ROOT = "Qformer."


@dataclass(frozen=True)
class BertStart:
    """Parameters for the start of a first stage, not a model. connector.width and .queries say nothing here.

    language_head: whether the file holds one.
    """

    connector: QFormerConfig
    text: QFormerText
    language_head: bool = True


@dataclass(frozen=True)
class WithDecodingRow:
    """One more row for `[DEC]`, which BERT lacks: std times numbers that are drawn from the tensor's name."""

    name: str
    std: float

    def into(self, parts: Sequence[Any]) -> Any:
        (array,) = parts
        random = np.random.default_rng(zlib.crc32(self.name.encode()))
        row = self.std * random.standard_normal((1, *array.shape[1:]), np.float32)
        return np.concatenate([array, row.astype(array.dtype)])

    def back(self, array: Any, count: int) -> list[Any]:
        return [array[:-1]]


def rules(start: BertStart, root: str = ROOT, old_norms: bool = True) -> tuple[Rule, ...]:
    """The Q-Former's rules of LAVIS, whose names of BERT's tensors are BERT's own behind `Qformer.`.

    root: before the names of all but the language head. old_norms: whether norms have gamma and beta.
    """
    ours = (*blip2.connector_rules(start.connector, "lavis"), *blip2.text_rules(start.connector, "lavis"))
    start_rules = [one for one in ours if not set(one.ours.split("/")) & set(LACKED)]
    start_rules.append(rule("text/text_position_embedding", f"{_LAVIS_ROOT}{ROOT}{POSITIONS}"))
    words = f"{_LAVIS_ROOT}{ROOT}{WORDS}"
    # As LAVIS draws the row; the head's bias of it begins at 0.
    start_rules.append(Rule("text/text_embedding", (Piece(words),), WithDecodingRow(words, 0.02)))
    if start.language_head:
        bias = f"{_LAVIS_ROOT}{HEAD}bias"
        start_rules += linear_rules("heads/word_dense", f"{_LAVIS_ROOT}{HEAD}transform.dense")
        start_rules += norm_rules("heads/word_norm", f"{_LAVIS_ROOT}{HEAD}transform.LayerNorm")
        start_rules.append(Rule("heads/word_bias", (Piece(bias),), WithDecodingRow(bias, 0.0)))
    return tuple(_renamed(one, root, old_norms) for one in start_rules)


def _renamed(one: Rule, root: str, old_norms: bool) -> Rule:
    pieces = []
    for piece in one.theirs:
        name = piece.name.removeprefix(_LAVIS_ROOT).replace("_query.", ".")
        if name.startswith(ROOT):
            name = root + name.removeprefix(ROOT)
        for new, old in OLD_NORMS.items():
            name = name.replace(new, old) if old_norms else name
        pieces.append(replace(piece, name=name))
    return replace(one, theirs=tuple(pieces))
