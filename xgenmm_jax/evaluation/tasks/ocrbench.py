"""OCRBench: 1,000 questions about text in pictures, a point for each right answer (Liu et al. 2023).

The paper's column is the points by ten.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.published.literals import texts_of
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.scorers.ocrbench import contains_answer
from xgenmm_jax.evaluation.tasks import multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

RECOGNITION = (
    "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition", "Handwriting Recognition",
    "Digit String Recognition", "Non-Semantic Text Recognition",
)  # fmt: skip
FORMULAS = "Handwritten Mathematical Expression Recognition"
OTHERS = ("Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction", FORMULAS)
QUESTIONS = 1000

FILE, PICTURES = "OCRBench.json", "OCRBench_Images"
"""The authors' list of questions, and the folder of their pictures."""


def _of_row(row: Row) -> Example:
    answers = texts_of(row.cells.get("answer", ""), f"ocrbench: the answers of row {row.index}")
    return _checked(questions.example_of_row(row, answers))


def _of_doc(doc: Doc) -> Example:
    return _example(doc.index, doc.pictures["image"], doc.fields, doc.fields["answer"], ("dataset", "question_type"))


def _original(folder: Path) -> Iterator[Example]:
    for number, entry in enumerate(questions.entries(folder / FILE)):
        try:
            image = questions.opened(folder / PICTURES, entry["image_path"])
            yield _example(str(number), (image,), entry, entry["answers"], ("dataset_name", "type"))
        except (KeyError, TypeError) as error:
            raise questions.entry_error(folder / FILE, number, error) from error


def _example(
    index: str, images: tuple[LazyImage, ...], entry: Mapping[str, Any], answers: Any, names: tuple[str, str]
) -> Example:
    """names: of the entry's columns that say from which set a question is and of which kind."""
    listed = answers if isinstance(answers, list) else [answers]
    fields = {"dataset": str(entry[names[0]]), "category": str(entry[names[1]])}
    return _checked(Example(index, images, entry["question"], tuple(map(str, listed)), fields=fields))


def _checked(example: Example) -> Example:
    if example.fields.get("category") not in (*RECOGNITION, *OTHERS):
        raise ValueError(
            f"ocrbench: question {example.id} is of '{example.fields.get('category')}'; wanted one of "
            f"{', '.join((*RECOGNITION, *OTHERS))}."
        )
    return example


def _message(example: Example, profile: Profile) -> Message:
    text = example.question.strip() if profile == "lmms" else example.question
    return multiple_choice.images_first(example, text)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    fields = example.fields
    is_formula = fields["category"] == FORMULAS
    if profile == "lmms" and "dataset" in fields:
        is_formula = fields["dataset"] == "HME100k"
    return Scored(float(contains_answer(answer, example.answers, is_formula, profile)))


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    by_kind: dict[str, list[Prediction]] = {kind: [] for kind in (*RECOGNITION, *OTHERS)}
    for prediction in predictions:
        by_kind[prediction.example.fields["category"]].append(prediction)
    recognition = _points([prediction for kind in RECOGNITION for prediction in by_kind[kind]])
    details = {kind: _points(there) for kind, there in by_kind.items()}
    final = _points(predictions)
    note = "" if len(predictions) == QUESTIONS else f"of {len(predictions)} questions, {QUESTIONS:,} are published"
    norm = dataclasses.replace(estimates.combine([(0.1, final)]), note=note)
    table = {"Final Score": final, "Text Recognition": recognition, **details}
    return {"ocrbench_accuracy" if profile == "lmms" else "Final Score Norm": norm, **table}


def _points(predictions: Sequence[Prediction]) -> Estimate:
    """The sum of scores."""
    terms = [Term(questions.picture_of(prediction), prediction.score) for prediction in predictions]
    return estimates.ratio(terms, scale=float(len(terms)))


OCRBENCH = Benchmark(
    name="ocrbench",
    title="OCRBench",
    source="github.com/Yuliang-Liu/MultimodalOCR and opencompass.openxlab.space/utils/VLMEval/OCRBench.tsv",
    published=(
        Tsv("OCRBench", _of_row, ("question", "answer", "category")),
        Parquet(
            "echo840/OCRBench", "data/test-*.parquet", _of_doc, ("dataset", "question", "question_type", "answer")
        ),
        Original((FILE, PICTURES), _original),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    headline={"paper": "Final Score Norm", "lmms": "ocrbench_accuracy"},
    answering=questions.lmms_or_vlmevalkit(128),
    profiles=(*VLMEVALKIT, "lmms"),
)
