"""Letters read out of answers, against what the public implementations read."""

import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.scorers import lmms_choices
from xgenmm_jax.evaluation.scorers.choices import group_hits, infer_choice

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"
CODES = {"vlmevalkit_paper": "paper", "vlmevalkit_fork": "fork", "vlmevalkit_head": "latest"}


def cases(name):
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))["cases"]


def options_of(row):
    return {letter: str(row[letter]) for letter in "ABCD" if row.get(letter) is not None}


@pytest.mark.parametrize("case", cases("mcq_can_infer"), ids=lambda case: case["note"])
def test_a_letter_or_an_options_text_is_read_as_by_vlmevalkit(case):
    options = {letter: str(text) for letter, text in case["choices"].items()}
    for code, expected in case["expected"].items():
        assert infer_choice(case["prediction"], options, CODES[code]) == (expected["result"] or None), code


@pytest.mark.parametrize("case", cases("option_letters"), ids=lambda case: repr(case["answer"]))
def test_letters_of_adversarial_answers_are_those_that_the_toolkits_read(case):
    answer, options, expected = case["answer"], case["options"], case["expected"]
    for code, profile in CODES.items():
        assert infer_choice(answer, options, profile) == expected[code], code
    assert lmms_choices.extract_letter(answer) == expected["extract_mcq_answer"]
    assert lmms_choices.extract_blink_letter(answer, "".join(options)) == expected["blink"]
    assert lmms_choices.extract_mmbench_letter(answer, options) == expected["mmbench_static"]
    assert lmms_choices.leading_letter(answer) == expected["muirbench_filter"]


@pytest.mark.parametrize("case", [case for case in cases("mcq_eval") if case["kind"] == "vanilla"])
def test_hits_and_means_of_rows_are_those_of_vlmevalkit(case):
    for code, expected in case["expected"].items():
        hits = [hit(row, CODES[code]) for row in case["rows"]]
        assert hits == [one["hit"] for one in expected["hits"]]
        for line in expected["report"]:
            of_split = [got for got, row in zip(hits, case["rows"], strict=True) if row["split"] == line["split"]]
            assert sum(of_split) / len(of_split) == pytest.approx(line["Overall"], abs=1e-12)


def hit(row, profile):
    options, gold = options_of(row), row["answer"]
    if "A" not in options:  # an open question of MMMU
        options |= {"A": gold, "B": "Other Answers"}
        gold = gold if gold in tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ") else "A"
    return infer_choice(row["prediction"], options, profile) == gold


def test_a_group_of_rotations_is_right_where_all_of_them_are():
    (case,) = [case for case in cases("mcq_eval") if case["kind"] == "circular"]
    for code, expected in case["expected"].items():
        rows = [
            (str(row["index"] % 10**6), infer_choice(row["prediction"], options_of(row), CODES[code]), row["answer"])
            for row in case["rows"]
        ]
        assert group_hits(rows) == {group: bool(right) for group, right in expected["hits"].items()}


def test_the_rules_of_a_profile_that_has_none_are_refused():
    with pytest.raises(ValueError, match="no rule of the profile 'lmms'; wanted one of paper, fork, latest"):
        infer_choice("A", {"A": "x"}, "lmms")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), (" because", "B"), ("The B", None), ("", None), ("(A)", None), ("d.", "D"), ("E", None)],
)
def test_seeds_letter_is_the_first_character(answer, letter):
    assert lmms_choices.first_letter(answer) == letter


@pytest.mark.parametrize(("answer", "text"), [("(B)", "b"), ("B) a leaf.", "b a leaf"), ("C. D", "c"), (" b ", "b")])
def test_ai2ds_answer_is_compared_without_case_and_punctuation(answer, text):
    assert lmms_choices.unmarked_letter(answer) == text


def test_any_letter_to_h_is_looked_for_where_no_options_are_known():
    assert lmms_choices.extract_letter("it is H", letters="") == "H"
    assert lmms_choices.extract_blink_letter("answer: Q", "") == "Q"
