"""TextVQA: 5,000 questions about text in photos, each answered by ten people (Singh et al. 2019)."""

from collections.abc import Iterator
import functools
from pathlib import Path

from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.scorers.vqa import normalize_answer, vqa_accuracy
from xgenmm_jax.evaluation.tasks import multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

_LAYOUTS = (
    ("TextVQA_0.5.1_val.json", "train_images"), ("textvqa/TextVQA_0.5.1_val.json", "textvqa/train_images"),
)  # fmt: skip
"""The authors' questions, and the folder of Open Images' photos in which those of this split are too."""


def _of_doc(doc: Doc) -> Example:
    fields = {"image": str(doc.fields["image_id"])} if "image_id" in doc.fields else {}
    return Example(
        doc.index, doc.images["image"], doc.fields["question"], tuple(doc.fields["answers"]), fields=fields
    )


def _original(folder: Path, file: str, images_folder: str) -> Iterator[Example]:
    path = folder / file
    for row in originals.rows_in(path, "data"):
        index, image_id, question = originals.texts(row, ("question_id", "image_id", "question"), path)
        images, unreadable = originals.image_below(folder / images_folder, f"{image_id}.jpg")
        answers = questions.some(originals.text_list(row, "answers", path), index, path)
        yield Example(index, images, question, answers, fields={"image": image_id}, unreadable=unreadable)


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        # All letters but the first in lower case: "What Brand is it?" becomes "What brand is it?".
        return multiple_choice.images_first(example, example.question.capitalize() + questions.BRIEFLY)
    return questions.briefly(example, profile)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    return Scored(vqa_accuracy(answer, example.answers, profile), normalize_answer(answer, profile))


TEXTVQA = Benchmark(
    name="textvqa",
    title="TextVQA",
    source="textvqa.org/dataset and opencompass.openxlab.space/utils/VLMEval/TextVQA_VAL.tsv",
    published=(
        Tsv("TextVQA_VAL", questions.example_of_row),
        Parquet("lmms-lab-encoder/textvqa", "data/validation-*.parquet", _of_doc, ("question", "answers")),
        *(Original(needs, functools.partial(_original, file=needs[0], images_folder=needs[1])) for needs in _LAYOUTS),
    ),
    message=_message,
    score=_score,
    summarize=questions.summary("exact_match"),
    headline={"paper": "Overall", "lmms": "exact_match"},
    answering=lmms_answering(until=("ASSISTANT:",)),
    profiles=(*VLMEVALKIT, "lmms"),
)
