"""HallusionBench: yes or no questions about figures that mislead, or were altered (Guan et al. 2024).

aAcc is the share of right answers, fAcc that of figures all of whose questions are right, qAcc that of questions that
are right for all their figures. Asked are the 951 questions that have a figure, of 1,129. The authors have GPT-4 judge
every answer; here rules read yes or no, as in VLMEvalKit without a judge. lmms-eval has no score without one.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from pathlib import Path
from typing import NamedTuple

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Original, Tsv
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.scorers.yes_no import extract_yes_no
from xgenmm_jax.evaluation.tasks import judging, multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

FILE, IMAGES = "HallusionBench.json", "hallusion_bench"
"""The authors' list of questions, and the folder of their figures."""


class _Position(NamedTuple):
    """Of a question among the others. Figures and questions of a set belong together."""

    category: str
    set_id: str
    figure_id: str
    question_id: str


def _of_row(row: Row) -> Example:
    if len(row.index.split("_")) < 6:
        raise ValueError(
            f"hallusionbench: index '{row.index}'; wanted CATEGORY_SUBCATEGORY_VISUAL_SET_FIGURE_QUESTION, as "
            "'VS_map_1_0_2_0'."
        )
    return questions.one_answer(row)


def _original(folder: Path) -> Iterator[Example | None]:
    path = folder / FILE
    for row in originals.rows_in(path):
        if not row.get("filename"):
            yield None
            continue
        category, subcategory, *position = originals.texts(
            row, ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id"), path
        )
        question, truth, name = originals.texts(row, ("question", "gt_answer", "filename"), path)
        if truth not in ("0", "1"):
            raise ValueError(f"hallusionbench: '{path}' has gt_answer '{truth}'; wanted 0 or 1.")
        l2 = f"{category}_{subcategory}"
        images, unreadable = originals.image_below(folder / IMAGES, name)
        yield Example(
            "_".join([l2, *position]),
            images,
            question,
            ("Yes" if truth == "1" else "No",),
            fields={"category": category, "l2-category": l2},
            unreadable=unreadable,
        )


def _message(example: Example, profile: Profile) -> Message:
    return multiple_choice.images_first(example, example.question)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    return questions.scored_label(extract_yes_no(answer, profile), multiple_choice.first_answer(example))


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    parts = {"": list(predictions)}
    for column in ("category", "l2-category"):
        for name in sorted({value for p in predictions if (value := p.example.fields.get(column)) is not None}):
            parts[f"{name}/"] = [p for p in predictions if p.example.fields.get(column) == name]
    table = {prefix + name: score for prefix, there in parts.items() for name, score in _scores(there).items()}
    average = estimates.average([table[name] for name in ("aAcc", "fAcc", "qAcc")])
    average = dataclasses.replace(average, items=len(predictions), unparsed=table["aAcc"].unparsed)
    return {"Average": average, **table}


def _scores(predictions: Sequence[Prediction]) -> Estimates:
    return {
        "aAcc": estimates.ratio(Term(_set(p), p.score, 1.0, p.extracted is None) for p in predictions),
        "fAcc": _all_right(predictions, lambda p: _position(p)._replace(question_id="")),
        "qAcc": _all_right(predictions, lambda p: _position(p)._replace(figure_id="")),
    }


def _all_right(predictions: Sequence[Prediction], group: Callable[[Prediction], _Position]) -> Estimate:
    """The percentage of groups whose answers are all right. items: the groups."""
    least: dict[_Position, float] = {}
    for prediction in predictions:
        least[group(prediction)] = min(least.get(group(prediction), 1.0), prediction.score)
    return estimates.ratio(Term(position[:2], score) for position, score in least.items())


def _position(prediction: Prediction) -> _Position:
    example = prediction.example
    return _Position(example.fields.get("l2-category", "nan"), *example.id.split("_")[3:6])


def _set(prediction: Prediction) -> tuple[str, ...]:
    return _position(prediction)[:2]


HALLUSIONBENCH = Benchmark(
    name="hallusionbench",
    title="HallusionBench",
    source="github.com/tianyi-lab/HallusionBench and opencompass.openxlab.space/utils/VLMEval/HallusionBench.tsv",
    published=(
        Tsv("HallusionBench", _of_row, ("question", "answer", "category", "l2-category")),
        Original((FILE, IMAGES), _original),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_yes_no(_score),
    headline="Average",
    profiles=VLMEVALKIT,
)
