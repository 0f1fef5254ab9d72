"""VQA accuracy against what five public implementations gave."""

import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.scorers import vqa

GOLDENS = json.loads(
    (Path(__file__).parents[2] / "goldens" / "evaluation" / "vqa_accuracy.json").read_text(encoding="utf-8")
)
# The fork's rules are VLMEvalKit's of today.
PROFILES = [
    ("official_vqa", "official"),
    ("openflamingo", "paper"),
    ("vlmevalkit_paper", "paper"),
    ("vlmevalkit_head", "latest"),
    ("vlmevalkit_head", "fork"),
    ("lmms_eval", "lmms"),
]


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_accuracy_is_that_of_the_implementation(name, profile):
    for case in GOLDENS["cases"]:
        got = vqa.vqa_accuracy(case["prediction"], case["answers"], profile)
        assert got == pytest.approx(case["expected"][name], abs=1e-9), case["note"]


@pytest.mark.parametrize(
    ("name", "profile"), [("official_vqa_if_applied" if n == "official_vqa" else n, p) for n, p in PROFILES]
)
def test_answers_are_normalized_as_there(name, profile):
    for case in GOLDENS["cases"]:
        assert vqa.normalize_answer(case["prediction"], profile) == case["pred_normalised"][name], case["note"]


@pytest.mark.parametrize("case", GOLDENS["pathological_no_answer_id"], ids=lambda case: case["prediction"])
def test_equal_answers_without_ids_are_one_persons(case):
    for name, profile in PROFILES[:2]:
        got = vqa.vqa_accuracy(case["prediction"], case["answers"], profile, answers_have_ids=False)
        assert got == pytest.approx(case[name], abs=1e-9)


@pytest.mark.parametrize(
    ("text", "paper", "latest", "lmms"),
    [
        ("10.", "10", "10.", "10"),
        ("5. 6.5 .7", "5 6.5 .7", "5. 6.5 .7", "5 6.5 .7"),
        ("What, 1,000?!", "what 1000", "what 1000", "what 1000"),
        ("it's,here", "it's here", "it's here", "it 'shere"),
        ("who? the Dog's,toy", "who dog's toy", "who dog's toy", "who dog 'stoy"),
        ("Im an Ive; 'ow'sat", "im ive 'ow's'at", "im ive 'ow's'at", "im ive 'ow 'sat"),
        ("." * 40 + "a", "........a", "........a", "........a"),
    ],
)
def test_normalization_by_profile(text, paper, latest, lmms):
    assert [vqa.normalize_answer(text, profile) for profile in ("paper", "latest", "lmms")] == [paper, latest, lmms]
    assert vqa.normalize_answer(text, "official") == paper
    assert vqa.normalize_answer(text, "fork") == latest


def test_one_answer_alone_has_no_others_who_agree():
    assert [vqa.vqa_accuracy("a cat", ["a cat"], profile) for _, profile in PROFILES] == [0.0] * len(PROFILES)


def test_a_question_nobody_answered_is_refused():
    with pytest.raises(ValueError, match="no reference answers"):
        vqa.vqa_accuracy("a", [])
