from dataclasses import dataclass
import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation import fewshot

GOLDENS = Path(__file__).parents[1] / "goldens" / "evaluation"


@dataclass(frozen=True)
class Item:
    id: str


def test_demonstrations_depend_on_seed_and_query_only_and_leave_the_query_out():
    pool = [Item(str(i)) for i in range(10)]
    first = fewshot.choose_demonstrations(pool[3], pool, 8, seed=1)
    assert first == fewshot.choose_demonstrations(pool[3], pool, 8, seed=1)
    assert first != fewshot.choose_demonstrations(pool[3], pool, 8, seed=2)
    assert first != fewshot.choose_demonstrations(pool[4], pool, 8, seed=1)
    assert len({item.id for item in first}) == 8 and pool[3] not in first
    assert len(fewshot.choose_demonstrations(pool[3], pool, 9, seed=1)) == 9
    with pytest.raises(ValueError, match="9 of 10 demonstrations"):
        fewshot.choose_demonstrations(pool[3], pool, 10, seed=1)


@pytest.mark.parametrize(
    "answers", [list("abcd"), list("aabb"), list("abca"), list("aabbccdd"), list("ab"), list("abcdabce")]
)
def test_permuted_answers_are_a_derangement(answers):
    """An answer that stays where it was would let the control score with a right demonstration."""
    permuted = fewshot.permuted_answers(answers)
    assert sorted(permuted) == sorted(answers)
    assert all(new != old for new, old in zip(permuted, answers, strict=True))


def test_permuted_answers_where_one_is_the_majority_keep_as_few_as_can_be():
    permuted = fewshot.permuted_answers(list("aaab"))
    assert sorted(permuted) == list("aaab")
    assert sum(new == old for new, old in zip(permuted, "aaab", strict=True)) == 2


@pytest.mark.parametrize("case", json.loads((GOLDENS / "fewshot_postprocess.json").read_text())["cases"])
def test_generations_are_cut_as_in_openflamingo(case):
    assert (
        fewshot.cut_answer(case["generation"], "caption" if case["kind"] == "caption" else "question")
        == case["expected"]
    )
