"""MME, POPE and HallusionBench: tables of public implementations, missing rows, and the authors' own files."""

import json
import math
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.tasks.benchmark import Choice
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.hallusionbench import HALLUSIONBENCH
from xgenmm_jax.evaluation.tasks.mme import MME, PERCEPTION, REASONING
from xgenmm_jax.evaluation.tasks.pope import POPE

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"


def cases(name):
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))["cases"]


def table(benchmark, rows, profile):
    """The scores of rows that hold their prediction."""
    predictions = []
    for row in rows:
        fields = {name: row[name] for name in ("category", "l2-category", "image_path") if name in row}
        example = Example(str(row["index"]), (), row["question"], (row["answer"],), fields=fields)
        scored = benchmark.task([example], Choice(profile)).scored(row["prediction"], example)
        predictions.append(Prediction(benchmark.name, example, "", scored.score, extracted=scored.extracted))
    return benchmark.summarize(predictions, profile)


def values(estimates):
    return {name: one.value for name, one in estimates.items()}


@pytest.mark.parametrize("profile", ["paper", "fork", "latest"])
@pytest.mark.parametrize("case", cases("mme"), ids=lambda case: case["name"])
def test_mme_is_that_of_vlmevalkit(case, profile):
    expected = case["expected"]
    wanted = expected["rating"] | {"total": expected["total"], "mme_norm": expected["mme_norm"]}
    assert values(table(MME, case["rows"], profile)) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("profile", ["paper", "latest"])
@pytest.mark.parametrize("case", cases("pope"), ids=lambda case: case["name"])
def test_pope_over_all_rows_and_each_split_is_that_of_vlmevalkit(case, profile):
    expected = case["expected"]["vlmevalkit_paper" if profile == "paper" else "vlmevalkit_head"]
    wanted = {
        ("" if row["split"] == "Overall" else f"{row['split']}/") + name: value
        for row in expected
        for name, value in row.items()
        if name != "split"
    }
    got = values(table(POPE, case["rows"], profile))
    assert {name: got[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("case", cases("pope"), ids=lambda case: case["name"])
def test_pope_by_its_own_script(case):
    ours = {"accuracy": "acc", "precision": "precision", "recall": "recall", "f1": "Overall", "yes_ratio": "yes_ratio"}
    got = table(POPE, case["rows"], "official")
    for split, wanted in case["expected"]["pope_official"].items():
        for name, our_name in ours.items():
            one = got[f"{split}/{our_name}"]
            if wanted[name] is None and our_name != "Overall":
                assert math.isnan(one.value) and "the script stops" in one.note
            elif wanted[name] is not None:
                assert one.value == pytest.approx(100 * wanted[name], abs=1e-9)


@pytest.mark.parametrize("profile", ["paper", "fork", "latest"])
@pytest.mark.parametrize("case", cases("hallusionbench"), ids=lambda case: case["name"])
def test_hallusionbench_is_that_of_vlmevalkit(case, profile):
    wanted = {"Average": case["expected"]["hallusionbench_avg"]}
    for row in case["expected"]["rating"]:
        prefix = "" if row["split"] == "Overall" else f"{row['split']}/"
        wanted |= {prefix + name: row[name] for name in ("aAcc", "fAcc", "qAcc")}
    assert values(table(HALLUSIONBENCH, case["rows"], profile)) == pytest.approx(wanted, abs=1e-9)


def mme_rows(categories, answer="Yes"):
    return [
        {"index": f"{category}{n}", "image_path": "1.jpg", "question": "?", "category": category, "answer": "Yes",
         "prediction": answer}
        for category in categories for n in range(2)
    ]  # fmt: skip


def test_mme_without_a_category_says_so():
    rows = mme_rows([name for name in (*PERCEPTION, *REASONING) if name != "scene"])
    got = table(MME, rows, "paper")
    assert math.isnan(got["perception"].value) and math.isnan(got["mme_norm"].value)
    assert got["perception"].note == got["mme_norm"].note == "no question of scene"
    assert got["reasoning"].value == 800.0
    assert table(MME, rows, "fork")["perception"].value == 1800
    assert table(MME, rows, "lmms")["mme_perception_score"].value == 1800


def test_mme_with_half_a_picture_says_so():
    rows = mme_rows((*PERCEPTION, *REASONING))[1:]
    got = table(MME, rows, "latest")
    assert math.isnan(got["OCR"].value) and got["OCR"].note == "1 questions about '1.jpg', wanted 2"
    assert math.isnan(got["total"].value) and "'1.jpg'" in got["total"].note


def test_errors_are_over_pictures_not_questions():
    def accuracy(pictures):
        predictions = []
        for number, picture in enumerate(pictures):
            fields = {"category": "random", "image": picture}
            said = "Yes" if number < 4 else "No"
            example = Example(str(number), (), "?", ("Yes",), fields=fields)
            predictions.append(Prediction("pope", example, said, float(said == "Yes"), extracted=said))
        return POPE.summarize(predictions, "paper")["acc"]

    apart, together = accuracy("01234567"), accuracy("00001111")
    assert apart.value == together.value == 50
    assert apart.stderr == pytest.approx(50 / math.sqrt(7))
    assert together.stderr == pytest.approx(50)


def test_a_row_of_pope_without_a_split_counts_in_the_whole_alone():
    rows = [
        {"index": "0", "question": "?", "answer": "Yes", "prediction": "No"},
        {"index": "1", "question": "?", "answer": "Yes", "prediction": "Yes", "category": "random,popular"},
    ]
    got = table(POPE, rows, "latest")
    assert [got[name].items for name in ("acc", "random/acc", "popular/acc")] == [3, 1, 1]
    assert got["acc"].value == pytest.approx(200 / 3)
