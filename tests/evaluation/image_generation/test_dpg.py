"""DPG-Bench's scores: those of the public script by its reading, and each rule worked by hand."""

import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.image_generation import dpg

GOLDENS = Path(__file__).parents[2] / "goldens" / "image_generation"
CASES = json.loads((GOLDENS / "dpg.json").read_text(encoding="utf-8"))["cases"]


def _answers(case: dict) -> dict:
    answers = {
        f"{name}.png": [{int(question): answer for question, answer in crop.items()} for crop in crops]
        for name, crops in case["answers"].items()
    }
    return {**answers, "notes.txt": None}


@pytest.mark.parametrize("case", CASES)
def test_as_published_is_the_public_script(case: dict):
    items = dpg.read_items(case["csv"], "as_published")
    assert {name: {str(q): list(p) or [0] for q, p in item.parents.items()} for name, item in items.items()} == {
        name: parsed["dependencies"] for name, parsed in case["parsed"].items()
    }
    for name, parsed in case["parsed"].items():
        assert items[name].kinds == {int(q): text.split("(")[0].strip() for q, text in parsed["tuples"].items()}
    scores = dpg.score(items, _answers(case), "as_published")
    expected = case["expected"]
    assert sorted(scores.failed) == sorted(expected["failed"])
    images = {f"{name}.png": one["score"] for name, one in expected["pictures"].items() if "score" in one}
    assert scores.images == pytest.approx(images, abs=1e-9)
    assert scores.groups == pytest.approx(expected["l1"], abs=1e-9)
    assert scores.kinds == pytest.approx(expected["l2"], abs=1e-9)
    assert scores.total == pytest.approx(expected["score"], abs=1e-9)


HEAD = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)
TABLE = "\n".join([
    HEAD,
    "a,two cats,,1,0,entity,whole,entity - whole (cat),is there a cat?",
    "a,two cats,,2,1,attribute,color,attribute - color (cat),is it red?",
    "b.c,a dog,,2,1,attribute,color,attribute - color (dog),is it red?",
    "b.c,a dog,,3,2,attribute,size,attribute - size (dog),is it big?",
    "b.c,a dog,,1,0,entity,whole,entity - whole (dog),is there a dog?",
])  # fmt: skip


def test_careful_loses_nothing():
    """All of "b.c" hangs on its dog, which stands last: 0 of 3; "a" has 1 of 2 and 2 of 2 in its crops: 75 %."""
    answers = {
        "a.png": [{1: "Yes ", 2: "no"}, {1: "yes", 2: "yes"}],
        "b.c.png": [{1: "no", 2: "yes", 3: "yes"}],
    }
    scores = dpg.score(dpg.read_items(TABLE), answers)
    assert scores.images == {"a.png": 0.75, "b.c.png": 0.0} and not scores.failed
    assert scores.total == 37.5
    assert scores.kinds == pytest.approx(
        {"entity - whole": 200 / 3, "attribute - color": 100 / 3, "attribute - size": 0.0}
    )
    assert scores.groups == pytest.approx({"entity": 200 / 3, "attribute": 25.0})


def test_the_published_reading_has_the_faults():
    """Question 1 of the first item is lost, with the picture; of a child before its parent only the first is zeroed."""
    items = dpg.read_items(TABLE.replace("b.c", "b"), "as_published")
    answers = {"a.png": [{1: "yes", 2: "yes"}], "b.png": [{1: "no", 2: "yes", 3: "yes"}]}
    scores = dpg.score(items, answers, "as_published")
    assert scores.failed == {"a.png": "a question depends on question 1, which is lost"}
    # Question 2 is zeroed by 1 and 3 by 2; were 3 listed before 2, it would stay.
    assert scores.images == {"b.png": 0.0}
    lines = TABLE.replace("b.c", "b").split("\n")
    items = dpg.read_items("\n".join([*lines[:3], lines[4], lines[3], lines[5]]), "as_published")
    assert dpg.score(items, answers, "as_published").images == {"b.png": pytest.approx(1 / 3)}
    assert scores.kinds["attribute - size"] == 100.0  # before dependencies


def test_what_cannot_be_scored_is_told():
    items = dpg.read_items(TABLE)
    with pytest.raises(ValueError, match="dpg: got no answer to question 2 of crop 1 of 'a.png'"):
        dpg.score(items, {"a.png": [{1: "yes"}]})
    with pytest.raises(ValueError, match="got 1 files and no picture to score"):
        dpg.score(items, {"x.png": [{1: "yes"}]})
    with pytest.raises(ValueError, match="row 3 has the number '2' and depends on 'x'"):
        dpg.read_items(TABLE.replace(",2,1,", ",2,x,", 1))
    with pytest.raises(ValueError, match="lacks the column 'dependency'"):
        dpg.read_items(TABLE.replace("dependency", "parents"))
