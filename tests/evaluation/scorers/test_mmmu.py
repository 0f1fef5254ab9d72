"""Choices and open answers by MMMU's rules, against the published code."""

import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.scorers import lmms_choices, mmmu
from xgenmm_jax.evaluation.scorers.choices import infer_choice

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"
OFFICIAL = json.loads((GOLDENS / "mmmu_official.json").read_text(encoding="utf-8"))
MUIRBENCH = json.loads((GOLDENS / "muirbench.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", OFFICIAL["multi_choice"], ids=lambda case: case["response"])
def test_a_choice_is_read_as_officially_and_none_where_that_draws_one(case):
    assert mmmu.read_choice(case["response"], case["index2ans"], "official") == case["parsed"]
    assert (case["parsed"] is None) == case["random_fallback"]


@pytest.mark.parametrize("case", OFFICIAL["open"], ids=lambda case: case["response"])
def test_open_answers_are_read_and_compared_as_officially(case):
    read = mmmu.read_open(case["response"])
    assert sorted(map(str, read)) == sorted(case["parsed"])
    assert mmmu.is_open_answer_right(read, [case["gold"]]) == case["correct"]


@pytest.mark.parametrize("case", MUIRBENCH, ids=lambda case: case["response"])
def test_muirbench_reads_a_choice_in_four_ways(case):
    answer, options = case["response"], case["index2ans"]
    assert mmmu.read_choice(answer, options, "official") == case["official"]
    assert lmms_choices.leading_letter(answer) == case["lmms_eval_filter"]
    assert infer_choice(answer, options, "paper") == (case["vlmevalkit_paper"] or None)
    assert infer_choice(answer, options, "latest") == (case["vlmevalkit_head"] or None)


def test_lmms_eval_takes_the_end_of_a_word_and_a_letter_with_a_period():
    options = {"A": "cat", "B": "dog"}
    assert mmmu.read_choice("NASA is it", options, "lmms") == "A"
    assert mmmu.read_choice("I say B.)", options, "lmms") == "B"
    assert mmmu.read_choice("NASA is it", options, "official") is None
    assert mmmu.read_choice("I say B.)", options, "official") is None


def test_the_last_of_several_letters_or_texts_counts():
    options = {"A": "cat", "B": "dog"}
    for profile in ("official", "lmms"):
        assert mmmu.read_choice("(B) or rather (A), B", options, profile) == "A"
        assert mmmu.read_choice("A B A B", options, profile) == "B"
        assert mmmu.read_choice("it may be a Dog or some cat", options, profile) == "A"
        assert mmmu.read_choice("some dog", options, profile) is None


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("So x = 1.06 m", {"1.06 m", 1.06}),
        ("It is 3,000\nand so on", {3000.0, 0.0, "on"}),
        ("first line\nx = 5", {5.0}),
        ("x = 5\nlast line", {"x = 5\nlast line", 5.0}),
        ("The answer is:", {"is:"}),
        ("-1.5e3", {-1500.0, -1.0, 3.0}),
        ("", {""}),
    ],
)
def test_what_an_open_answer_says_is_the_shortest_part_and_its_numbers(answer, read):
    assert set(mmmu.read_open(answer)) == read


def test_each_of_several_right_answers_suffices():
    assert mmmu.is_open_answer_right(mmmu.read_open("It is the red one"), ["blue", "Red"])
    assert mmmu.is_open_answer_right(mmmu.read_open("so 12.004"), ["13", "12.0"])
    assert not mmmu.is_open_answer_right(mmmu.read_open("so 12.006"), ["13", "12.0"])


def test_the_rules_of_another_profile_are_refused():
    with pytest.raises(ValueError, match="no rule of the profile 'paper'; wanted one of official, lmms"):
        mmmu.read_choice("A", {"A": "x"}, "paper")
