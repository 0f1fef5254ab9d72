"""Baselines: constants chosen from examples, and the reference answers."""

import dataclasses
import itertools
import json
from pathlib import Path

from answering import counting
import pytest

from xgenmm_jax.evaluation import baselines
from xgenmm_jax.evaluation.baselines import baseline_of, commonest_answer, constant_box, task_baselines
from xgenmm_jax.evaluation.scorers import boxes, cider
from xgenmm_jax.evaluation.tasks.example import Example

CORPORA = json.loads((Path(__file__).parents[1] / "goldens/evaluation/cider.json").read_text())["cases"]


def examples(*answers: tuple[str, ...]) -> list[Example]:
    return [Example(str(index), (), "?", each) for index, each in enumerate(answers)]


def test_the_commonest_answer_is_that_of_most_examples():
    """What one example says three times is right once."""
    assert commonest_answer(examples(("red", "red", "red"), ("blue",), ("green", "blue"))) == "blue"
    assert commonest_answer(examples(("red",), ("blue",))) == "red"


def test_every_metric_of_a_task_has_its_constants_and_its_references():
    task = counting("a", 4)
    assert task_baselines(task) == {"a": {"commonest answer": 0.25, "reference answers": 1.0}}
    other = dataclasses.replace(
        task,
        summarize=lambda predictions: {"a/right": sum(p.score for p in predictions), "a/count": len(predictions)},
        constant_answers=lambda examples: {"always 7": "7", "always 1": "1"},
    )
    result = task_baselines(other)
    assert result == {
        "a/right": {"always 7": 0.0, "always 1": 1.0, "reference answers": 4.0},
        "a/count": {"always 7": 4, "always 1": 4, "reference answers": 4},
    }
    assert baseline_of(result, "a/right") == ("always 7", 0.0)
    assert baseline_of(result, "b") is None


def test_the_constant_box_is_as_good_as_any_on_a_grid():
    true = ["[0.1, 0.1][0.4, 0.4]", "[0.2, 0.1][0.5, 0.4]", "[0.1, 0.2][0.4, 0.6]", "[0.7, 0.7][0.9, 0.9]"]
    constant = constant_box(examples(*((box,) for box in true)))

    def mean_iou(text: str) -> float:
        return sum(boxes.text_iou(text, box) for box in true) / len(true)

    grid = [step / 10 for step in range(11)]
    candidates = [
        f"[{x0}, {y0}][{x1}, {y1}]"
        for (x0, x1), (y0, y1) in itertools.product(itertools.combinations(grid, 2), repeat=2)
    ]
    assert mean_iou(constant) >= max(map(mean_iou, [*candidates, *true])) - 1e-9


SLOW = {"synthetic_50_images": pytest.mark.slow}
"""All references of all images are tried one by one, which takes seconds."""


@pytest.mark.parametrize(
    "corpus",
    [pytest.param(case, marks=SLOW.get(case["name"], ()), id=case["name"]) for case in CORPORA],
)
def test_the_constant_caption_is_the_reference_with_the_highest_cider(corpus):
    references = {key: entry["refs"] for key, entry in corpus["corpus"].items()}
    constant = baselines.constant_caption([Example(key, (), "", tuple(texts)) for key, texts in references.items()])

    def score(caption: str) -> float:
        return cider.cider(dict.fromkeys(references, caption), references)[0]

    assert score(constant) == pytest.approx(max(score(text) for texts in references.values() for text in texts))
