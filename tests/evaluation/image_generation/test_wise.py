"""WISE's scores: those of the public scripts by their reading, and each rule worked by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from xgenmm_jax.evaluation.image_generation import wise
from xgenmm_jax.evaluation.image_generation.wise import Version, WiseScores

GOLDENS = Path(__file__).parents[2] / "goldens" / "image_generation"
VERSIONS: tuple[Version, ...] = ("2025", "verified")


def _golden(version: Version) -> dict:
    return json.loads((GOLDENS / f"wise_{version}.json").read_text(encoding="utf-8"))


def _lines(golden: dict, case: dict, file: str) -> list[str]:
    removed = set(case.get("remove", {}).get(file, ()))
    lines = [line for i, line in enumerate(golden["files"].get(file, ())) if i not in removed]
    return [*lines, *case.get("append", {}).get(file, ())]


def _check(result: WiseScores, categories: dict) -> None:
    means = {name: mean for name, (mean, _) in result.categories.items()}
    assert means == pytest.approx({name: one["mean"] for name, one in categories.items()}, abs=1e-12)
    assert {name: n for name, (_, n) in result.categories.items()} == {
        name: one["n"] for name, one in categories.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_as_published_is_the_public_script(version: Version):
    golden = _golden(version)
    for case in golden["cases"]:
        expected = case["expected"]
        files = [_lines(golden, case, file) for file in case["files"]]
        result = wise.score(files, version, case.get("category", "all"), "as_published")
        _check(result, expected["categories"])
        assert (result.overall is None) == (expected["overall"] is None)
        if expected["overall"] is not None:
            assert result.overall == pytest.approx(expected["overall"], abs=1e-12)
            assert f"{result.overall:.2f}" == expected["overall_printed"]
        if "category" not in case:
            assert (result.missing or None, result.skipped) == (expected["missing"], expected["skipped_lines"])


@pytest.mark.parametrize("version", VERSIONS)
def test_replies_are_read_as_the_public_script_reads_them(version: Version):
    for case in _golden(version)["judgements"]:
        assert wise.scores_in(case["text"], version) == case["scores"], case["text"]
    fields = ("consistency", "realism", "aesthetic_quality") if version == "2025" else ("score",)
    for case in _golden(version)["wiscore"]:
        scores = dict(zip(fields, case["args"], strict=True))
        assert wise.image_score(scores, version) == pytest.approx(case["value"], abs=1e-12)


def _file(first: int, last: int, **scores: Any) -> list[str]:
    return [json.dumps({"prompt_id": number, **scores}) for number in range(first, last + 1)]


FULL = {"consistency": 2, "realism": 2, "aesthetic_quality": 2}


def test_overall_worked_by_hand():
    """Culture (0.7 x 1 + 0.2 x 2) / 2 = 0.55, all others 1: 0.4 x 0.55 + 0.6 = 0.82. Verified: 0.4 x 0 + 5 x 0.12."""
    culture = _file(1, 400, consistency=1, realism=2, aesthetic_quality=0)
    result = wise.score([culture, _file(401, 1000, **FULL)], "2025")
    assert result.categories["CULTURE"] == (pytest.approx(0.55), 400) and result.overall == pytest.approx(0.82)
    assert result.categories["TIME"][1] == 167 and result.categories["SPACE"][1] == 133
    verified = wise.score([_file(1, 400, score=0), _file(401, 1000, score=1)], "verified")
    assert verified.overall == pytest.approx(0.6) and verified.categories["PHYSICS"] == (1.0, 120)


def test_careful_counts_unusable_lines_as_missing_and_repeated_ones_once():
    lines = _file(1, 1000, **FULL)
    broken = [*lines[1:], '{"prompt_id": 1, "consistency": 999, "realism": 2, "aesthetic_quality": 2}']
    assert wise.score([broken], "2025") == WiseScores({}, None, 1, 1)
    published = wise.score([broken], "2025", reading="as_published")
    assert published.overall is not None and published.overall > 1
    repeated = [*lines, '{"prompt_id": 1, "consistency": 0, "realism": 0, "aesthetic_quality": 0}']
    assert wise.score([repeated], "2025").categories["CULTURE"] == (pytest.approx(399 / 400), 400)
    assert wise.score([repeated], "2025", reading="as_published").categories["CULTURE"] == (
        pytest.approx(400 / 401),
        401,
    )


def test_a_categorys_prompts_are_checked_however_many_files_it_has():
    one, other = _file(401, 567, **FULL), _file(568, 699, **FULL)
    assert wise.score([one, other], "2025", "space-time").missing == 1
    assert wise.score([one, other], "2025", "space-time", "as_published").missing == 0
    whole = wise.score([one, [*other, *_file(700, 700, **FULL)]], "2025", "space-time")
    assert whole.categories["SPACE"] == (pytest.approx(1.0), 133)
