"""OCRBench: 1,000 questions about text in pictures, a point for each right answer (Liu et al. 2023).

The paper's column is the points by ten.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
from pathlib import Path

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.published.literals import texts_of
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.scorers.ocrbench import contains_answer
from xgenmm_jax.evaluation.tasks import multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

RECOGNITION = (
    "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition", "Handwriting Recognition",
    "Digit String Recognition", "Non-Semantic Text Recognition",
)  # fmt: skip
FORMULAS = "Handwritten Mathematical Expression Recognition"
OTHERS = ("Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction", FORMULAS)
QUESTIONS = 1000

IMAGES = "OCRBench_Images"
_LAYOUTS = (("OCRBench/OCRBench.json", IMAGES), ("OCRBench.json", IMAGES))
"""The authors' list of questions and the folder of their pictures, as their scripts look for them, and side by side."""


def _of_row(row: Row) -> Example:
    answers = texts_of(row.cells.get("answer", ""), f"ocrbench: the answers of row {row.index}")
    return _checked(questions.example_of_row(row, answers))


def _of_doc(doc: Doc) -> Example:
    answers = doc.fields["answer"]
    return _checked(
        Example(
            doc.index,
            doc.images["image"],
            doc.fields["question"],
            tuple(answers) if isinstance(answers, list) else (answers,),
            fields={"dataset": doc.fields["dataset"], "category": doc.fields["question_type"]},
        )
    )


def _original(folder: Path, file: str) -> Iterator[Example]:
    path = folder / file
    for number, row in enumerate(originals.rows_in(path)):
        names = ("dataset_name", "image_path", "question", "type")
        dataset, image_path, question, kind = originals.texts(row, names, path)
        of_list = isinstance(row.get("answers"), list)
        answers = originals.text_list(row, "answers", path) if of_list else originals.texts(row, ("answers",), path)
        images, unreadable = originals.image_below(folder / IMAGES, image_path)
        fields = {"dataset": dataset, "category": kind, "image": image_path}
        yield _checked(Example(str(number), images, question, tuple(answers), fields=fields, unreadable=unreadable))


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
    terms = [Term(questions.image_group(prediction), prediction.score) for prediction in predictions]
    return estimates.ratio(terms, scale=float(len(terms)))


OCRBENCH = Benchmark(
    name="ocrbench",
    title="OCRBench",
    source="github.com/Yuliang-Liu/MultimodalOCR and opencompass.openxlab.space/utils/VLMEval/OCRBench.tsv",
    published=(
        Tsv("OCRBench", _of_row, ("question", "answer", "category")),
        Parquet("echo840/OCRBench", "data/test-*.parquet", _of_doc, ("dataset", "question", "question_type", "answer")),
        *(Original(needs, functools.partial(_original, file=needs[0])) for needs in _LAYOUTS),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    headline={"paper": "Final Score Norm", "lmms": "ocrbench_accuracy"},
    answering=lmms_answering(128),
    profiles=(*VLMEVALKIT, "lmms"),
)
