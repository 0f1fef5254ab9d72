"""MathVista's answers, against VLMEvalKit and the official script, and by rules of our own."""

import ast
import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.scorers import mathvista
from xgenmm_jax.evaluation.scorers.mathvista import Problem

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"
CASES = json.loads((GOLDENS / "mathvista.json").read_text(encoding="utf-8"))["cases"]
INTEGER = Problem("free_form", "integer", "14")
CHOICE = Problem("multi_choice", "text", "7cm", "B", ("6cm", "7cm"))


def problem_of(case) -> Problem:
    choices = tuple(map(str, ast.literal_eval(case["choices"])))
    return Problem(case["question_type"], case["answer_type"], case["answer"], case["answer_option"], choices, 1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["prediction"]))
def test_vlmevalkit_reads_what_needs_no_judge(case):
    for code, profile in (("vlmevalkit_paper", "paper"), ("vlmevalkit_head", "latest")):
        expected, problem = case["expected"][code], problem_of(case)
        read = mathvista.prefetch(case["prediction"], problem, profile)
        # Nought is read by the published code too, and then taken for nothing.
        assert read == (str(expected["prefetch"]) if expected["prefetch"] else None)
        extraction = case.get("judge_extracted", "") if read is None else read
        assert mathvista.is_extraction_right(extraction, problem, profile) == expected["correct"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["prediction"]))
def test_the_official_script_normalizes_what_it_or_its_judge_extracts(case):
    expected, problem = case["expected"]["mathvista_official"], problem_of(case)
    extraction = mathvista.extract_official(case["prediction"], problem) or case.get("judge_extracted", "")
    assert extraction == expected["extraction_without_or_with_judge"]
    normalized = mathvista.normalize_official(extraction, problem)
    assert normalized == expected["normalised"]
    assert (normalized == case["answer"]) == expected["correct"]


def test_the_official_script_reads_a_quoted_text_where_it_may_be_quick():
    answer = 'So it is clear. The answer is "14".'
    assert mathvista.extract_official(answer, INTEGER, quick=True) == "14"
    assert mathvista.extract_official(answer, INTEGER) == ""


@pytest.mark.parametrize(
    ("extraction", "normalized"), [("(b) 7", "7cm"), ("A", "6cm"), ("7 cm", "7cm"), ("E", "6cm"), ("", "6cm")]
)
def test_a_choice_is_officially_the_nearest_text_even_to_nothing(extraction, normalized):
    assert mathvista.normalize_official(extraction, CHOICE) == normalized


@pytest.mark.parametrize(
    ("answer", "problem", "reading", "right"),
    [
        ("So we get 2 * 7 = 14.", INTEGER, "14", True),
        ("$1,400", Problem("free_form", "integer", "1400"), "1400", True),
        ("3-14", INTEGER, "14", True),
        ("it is \u221214", INTEGER, "-14", False),
        ("about 1.249%", Problem("free_form", "float", "1.2", precision=1), "1.249", True),
        ("none", INTEGER, None, False),
        ("It is 14 or 15", INTEGER, "15", False),
        ("First (A), but the answer is: B since 7 is", CHOICE, "B", True),
        ("(A) is wrong, so (B) and not (C)", CHOICE, "B", True),
        ("surely 7cm", CHOICE, "B", True),
        ("no idea", CHOICE, None, False),
        ("between [2007, 2008]", Problem("free_form", "list", "[2007, 2008]"), "[2007, 2008]", True),
        ("[2007,2009]", Problem("free_form", "list", "[2007, 2008]"), "[2007,2009]", False),
    ],
)
def test_our_own_rule_reads_the_last_number_letter_or_list(answer, problem, reading, right):
    assert mathvista.read_by_rule(answer, problem, "latest") == reading
    assert (reading is not None and mathvista.is_reading_right(reading, problem)) == right


def test_the_rules_of_another_profile_are_refused():
    with pytest.raises(ValueError, match="no rule of the profile 'official'"):
        mathvista.prefetch("A", CHOICE, "official")
