"""Scores of what was read in charts and pictures of text, against those of public implementations."""

import ast
import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.scorers.chartqa import relaxed_accuracy
from xgenmm_jax.evaluation.scorers.ocrbench import contains_answer

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"
FORMULA = "Handwritten Mathematical Expression Recognition"


def cases(name: str) -> list[dict]:
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", cases("relaxed_accuracy"), ids=lambda case: case["note"])
def test_relaxed_accuracy_of_every_profile(case):
    expected = case["expected"]
    got = {
        profile: relaxed_accuracy(case["prediction"], [case["target"]], profile)
        for profile in ("paper", "fork", "latest", "lmms")
    }
    assert got == {
        "paper": expected["vlmevalkit_paper"],
        "fork": expected["vlmevalkit_head"],
        "latest": expected["vlmevalkit_head"],
        "lmms": expected["lmms_eval"],
    }


@pytest.mark.parametrize(
    ("prediction", "answers", "paper", "latest", "lmms"),
    [
        ("105.1", ["100"], 1, 0, 0),
        ("95", ["100"], 0, 1, 1),
        ("1.05", ["1"], 1, 0, 0),  # 1.05 - 1 is a little more than 0.05
        (" blue\n", ["Blue"], 1, 1, 0),
        ("0", ["0.0"], 0, 0, 0),
        ("0", ["100"], 0, 0, 0),
        ("100", ["0"], 0, 0, 0),
        ("inf", ["inf"], 0, 0, 0),
        ("５０%%", ["0.5"], 1, 1, 1),
        ("1e2", ["0100.0"], 1, 1, 1),
        ("2010", ["2500", "2014"], 1, 1, 1),
        ("-95", ["95"], 0, 0, 0),
        ("STRASSE", ["straße"], 0, 0, 0),
        ("%", ["%"], 1, 1, 1),
    ],
)
def test_numbers_may_be_off_by_a_twentieth(prediction, answers, paper, latest, lmms):
    got = [relaxed_accuracy(prediction, answers, profile) for profile in ("paper", "latest", "fork", "lmms")]
    assert got == [paper, latest, latest, lmms]


@pytest.mark.parametrize("profile", ["paper", "fork", "latest"])
@pytest.mark.parametrize("case", cases("ocrbench"), ids=lambda case: case["rows"][0]["answer"])
def test_ocrbench_points_are_those_of_vlmevalkit(case, profile):
    points = [
        contains_answer(str(row["prediction"]), ast.literal_eval(row["answer"]), row["category"] == FORMULA, profile)
        for row in case["rows"]
    ]
    assert sum(points) == case["expected"]["Final Score"]
    formulas = [point for point, row in zip(points, case["rows"], strict=True) if row["category"] == FORMULA]
    assert sum(formulas) == case["expected"][FORMULA]


@pytest.mark.parametrize(
    ("prediction", "answer", "is_formula", "latest", "lmms"),
    [
        ("ＡＢＣ　１", "abc 1", False, False, True),
        ("abc 1", "ＡＢＣ　１", False, False, True),
        ("ｘ", "x", True, False, False),
        ("\\frac { a }\n{ b }", "\\frac{a} {b}", True, True, True),
        ("X", "x", True, False, False),
        ("one\ntwo", "One Two", False, True, True),
        ("one\ttwo", "one two", False, False, False),
        ("", "", False, True, True),
        ("İ", "i̇", False, True, True),
    ],
)
def test_answers_are_found_as_parts(prediction, answer, is_formula, latest, lmms):
    got = [contains_answer(prediction, [answer], is_formula, profile) for profile in ("paper", "latest", "lmms")]
    assert got == [latest, latest, lmms]


def test_profiles_without_a_rule_are_refused():
    with pytest.raises(ValueError, match="relaxed accuracy: no rule of the profile 'official'"):
        relaxed_accuracy("1", ["1"], "official")
    with pytest.raises(ValueError, match="OCRBench: no rule of the profile 'official'"):
        contains_answer("1", ["1"], False, "official")
