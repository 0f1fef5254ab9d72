"""Mantis-Eval's answers and MM-Vet's table, against the published code."""

import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.scorers import mantis, mmvet

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"


def cases(name):
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", cases("mantis_eval"), ids=lambda case: repr(case["raw_answer"]))
def test_answers_are_read_as_by_mantis(case):
    if case["question_type"] == "multi-choice":
        reading = mantis.read_choice(case["raw_answer"], case["ref_answer"], case["options"])
    else:
        reading = mantis.read_short(case["raw_answer"], case["ref_answer"])
    assert reading.text == case["expected"]["parsed_answer"]
    assert reading.is_right == case["expected"]["correct"]


@pytest.mark.parametrize(
    ("answer", "gold", "letter", "right"),
    [
        ("final answer: Answer: B or A", "(B)", "B", True),
        ("Analysis. Final Answer: C, the answer is B", "C", "C", True),
        ("the picture", "A", None, False),
        ("7 + 2", "(D) 7 + 2", None, True),
        ("42", "B", None, True),
        ("43", "C", None, True),
        ("", "A", None, False),
        ("A", "(E)", "A", False),
        ("7", "(E)", None, False),
        ("\u00df", "A", None, False),
    ],
)
def test_a_choice_is_the_first_letter_of_the_final_answer_or_the_options_text(answer, gold, letter, right):
    reading = mantis.read_choice(answer, gold, ["(A) cat", "B. 42", "C: 43", "7 + 2"])
    assert (reading.letter, reading.is_right) == (letter, right)


def test_a_gold_answer_without_a_letter_is_refused():
    with pytest.raises(ValueError, match=r"mantis: got the right answer '\(12\)'; wanted an option's letter"):
        mantis.read_choice("A", "(12)", ["x"])


@pytest.mark.parametrize("case", cases("mmvet_aggregation"), ids=lambda case: str(len(case["rows"])))
@pytest.mark.parametrize("table", ["main", "fine"])
def test_rows_count_as_often_as_in_vlmevalkits_tables(case, table):
    lines = {line["Category"]: line for line in case["expected"][table] if line["Category"] != "Overall"}
    for name, line in lines.items():
        counted = [(mmvet.times_counted(name, row["category"]), row["score"]) for row in case["rows"]]
        assert sum(times for times, _ in counted) == line["tot"]
        assert 100 * sum(times * score for times, score in counted) / line["tot"] == pytest.approx(
            line["acc"], abs=1e-9
        )
    names = {mmvet.combination_of(row["category"]) for row in case["rows"]} if table == "fine" else mmvet.CAPABILITIES
    assert set(lines) == set(names)


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("x = -1", "-1<AND>-5", 0.5),
        ("x = -1 or x = -5.", "-1<AND>-5", 1.0),
        ("It shows 15 cars", "5", 0.0),
        ("It is Winnie  the\nPooh.", "winnie the pooh<OR>bear", 1.0),
        ("a and b", "a<AND>c<OR>b", 1.0),
        ("", "yes", 0.0),
        ("anything", "", 0.0),
    ],
)
def test_the_rule_without_a_judge_counts_elements(answer, gold, score):
    assert mmvet.mmvet_rule(answer, gold) == score
