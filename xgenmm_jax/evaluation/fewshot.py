"""Demonstrations for a query of a base model, and where its answer ends.

The prompt itself is `data.text.prompts.few_shot_prompt`.
"""

from collections.abc import Sequence
import re
from typing import Literal, Protocol, TypeVar, runtime_checkable
import zlib

import numpy as np

AnswerKind = Literal["question", "caption"]

_VQA_CUT = re.compile("Question|Answer|Short")


@runtime_checkable
class Identified(Protocol):
    """A query or a demonstration, such as an `Example`."""

    id: str


T = TypeVar("T", bound=Identified)


def choose_demonstrations(query: Identified, pool: Sequence[T], count: int, *, seed: int) -> list[T]:
    """`count` different items of the pool, never the query itself.

    Drawn from (seed, the query's id) alone: the same for any batch size, order of queries or number of hosts
    (OpenFlamingo seeds by rank).
    """
    rng = np.random.default_rng((seed, zlib.crc32(query.id.encode())))
    chosen: list[T] = []
    for index in rng.permutation(len(pool)):
        if len(chosen) == count:
            return chosen
        if pool[index].id != query.id:
            chosen.append(pool[index])
    if len(chosen) < count:
        raise ValueError(
            f"few shots: a pool of {len(pool)} items gives {len(chosen)} of {count} demonstrations; enlarge it"
        )
    return chosen


def permuted_answers(answers: Sequence[str]) -> list[str]:
    """The same answers, each at another position, so that no demonstration has the answer that is right for it.

    Nor an equal one, as long as no answer is more than half of them: rotating the sorted answers by the count of the
    commonest moves every run of equal answers off itself. `["red", "blue", "red", "green"]` gives
    `["green", "red", "blue", "red"]`.
    """
    order = sorted(range(len(answers)), key=lambda i: answers[i])
    commonest = max((list(answers).count(answer) for answer in answers), default=0)
    shift = commonest if commonest < len(answers) else 1
    out = list(answers)
    for position, index in enumerate(order):
        out[index] = answers[order[(position + shift) % len(order)]]
    return out


def cut_answer(generation: str, kind: AnswerKind = "question") -> str:
    """The part of a base model's answer in front of the next demonstration that it makes up.

    Source: OpenFlamingo's postprocess_vqa_generation and postprocess_captioning_generation.
    """
    if kind == "caption":
        return generation.split("Output", 1)[0].replace('"', "")
    return _VQA_CUT.split(generation, maxsplit=1)[0].split(", ", 1)[0]
