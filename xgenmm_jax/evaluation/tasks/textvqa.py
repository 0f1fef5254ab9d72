"""TextVQA: 5,000 questions about text in photos, each answered by ten people (Singh et al. 2019)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.scorers.vqa import normalize_answer, vqa_accuracy
from xgenmm_jax.evaluation.tasks import multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

FILE, PICTURES = "TextVQA_0.5.1_val.json", "train_images"
"""The authors' questions, and the folder of Open Images' photos in which those of this split are too."""


def _of_doc(doc: Doc) -> Example:
    fields = {"picture": str(doc.fields["image_id"])} if "image_id" in doc.fields else {}
    return Example(
        doc.index, doc.pictures["image"], doc.fields["question"], tuple(doc.fields["answers"]), fields=fields
    )


def _original(folder: Path) -> Iterator[Example]:
    for number, entry in enumerate(questions.entries(folder / FILE, "data")):
        try:
            image = questions.opened(folder / PICTURES, f"{entry['image_id']}.jpg")
            answers, fields = tuple(entry["answers"]), {"picture": entry["image_id"]}
            yield Example(str(entry["question_id"]), (image,), entry["question"], answers, fields=fields)
        except (KeyError, TypeError) as error:
            raise questions.entry_error(folder / FILE, number, error) from error


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        # All letters but the first in lower case: "What Brand is it?" becomes "What brand is it?".
        return multiple_choice.images_first(example, example.question.capitalize() + questions.BRIEFLY)
    return questions.briefly(example, profile)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    return Scored(vqa_accuracy(answer, example.answers, profile), normalize_answer(answer, profile))


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    if profile == "lmms":
        return {"exact_match": questions.accuracy(predictions)}
    return questions.accuracy_table(predictions)


TEXTVQA = Benchmark(
    name="textvqa",
    title="TextVQA",
    source="textvqa.org/dataset and opencompass.openxlab.space/utils/VLMEval/TextVQA_VAL.tsv",
    published=(
        Tsv("TextVQA_VAL", questions.example_of_row),
        Parquet("lmms-lab-encoder/textvqa", "data/validation-*.parquet", _of_doc, ("question", "answers")),
        Original((FILE, PICTURES), _original),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    headline={"paper": "Overall", "lmms": "exact_match"},
    answering=questions.lmms_or_vlmevalkit(1024, until="ASSISTANT:"),
    profiles=(*VLMEVALKIT, "lmms"),
)
