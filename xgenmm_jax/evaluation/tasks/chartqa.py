"""ChartQA: 2,500 questions about charts, half of them written by people, half made by a model (Masry et al. 2022)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers.chartqa import relaxed_accuracy
from xgenmm_jax.evaluation.tasks import multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

HUMAN, AUGMENTED = "test_human", "test_augmented"

FOLDER = "ChartQA Dataset/test"
"""The authors' files: two lists of questions, and the charts in png/."""
_FILES = {split: f"{FOLDER}/{split}.json" for split in (HUMAN, AUGMENTED)}


def _of_row(row: Row) -> Example:
    return questions.example_of_row(row, [row.cells.get("answer", "nan")])


def _of_doc(doc: Doc) -> Example:
    # lmms-eval's score takes every other type for augmented.
    fields = {"split": HUMAN if doc.fields["type"] == "human_test" else AUGMENTED}
    return Example(doc.index, doc.images["image"], doc.fields["question"], (doc.fields["answer"],), fields=fields)


def _original(folder: Path) -> Iterator[Example]:
    for split, file in _FILES.items():
        path = folder / file
        for number, row in enumerate(originals.rows_in(path)):
            name, question, label = originals.texts(row, ("imgname", "query", "label"), path)
            images, unreadable = originals.image_below(folder / FOLDER / "png", name)
            fields = {"split": split, "image": name}
            yield Example(f"{split}/{number}", images, question, (label,), fields=fields, unreadable=unreadable)


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        return multiple_choice.images_first(example, f"{example.question}\nAnswer the question with a single word.")
    return questions.briefly(example, profile)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    truth = multiple_choice.first_answer(example)
    answers = (truth,) if profile == "lmms" else questions.listed(truth)
    return Scored(relaxed_accuracy(answer, answers, profile))


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    table = questions.accuracy_table(predictions)
    if profile != "lmms":
        return table
    names = {"Overall": "relaxed_overall", HUMAN: "relaxed_human_split", AUGMENTED: "relaxed_augmented_split"}
    return {names[name]: score for name, score in table.items()}


CHARTQA = Benchmark(
    name="chartqa",
    title="ChartQA",
    source="github.com/vis-nlp/ChartQA and opencompass.openxlab.space/utils/VLMEval/ChartQA_TEST.tsv",
    published=(
        Tsv("ChartQA_TEST", _of_row),
        Parquet("lmms-lab-encoder/ChartQA", "data/test-*.parquet", _of_doc, ("type", "question", "answer")),
        Original((*_FILES.values(), f"{FOLDER}/png"), _original),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    headline={"paper": "Overall", "lmms": "relaxed_overall"},
    answering=lmms_answering(16),
    profiles=(*VLMEVALKIT, "lmms"),
)
