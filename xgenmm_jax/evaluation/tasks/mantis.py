"""Mantis-Eval, test: 217 questions over several images, choices and short answers (Jiang et al. 2024).

The authors' script sets images at the tags of the question. lmms-eval shows all images first, leaves the tags in the
text, appends the list of options as Python writes it, and samples at temperature 0.2.
"""

from collections.abc import Sequence

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published.files import Doc, Parquet
from xgenmm_jax.evaluation.scorers import mantis
from xgenmm_jax.evaluation.tasks import multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.muirbench import TAG
from xgenmm_jax.evaluation.tasks.task import Scored

PROFILES: tuple[Profile, ...] = ("lmms", "official")
CHOICE, SHORT = "multi-choice", "short-answer"
_SHORT_PROMPT = (
    "Given the images, answer the following short answer vqa question:\nQ: {}\nYou can first give your analysis, and "
    'then give your final answer as "Final Answer:"'
)


def _of_doc(doc: Doc) -> Example:
    kind = doc.fields["question_type"]
    if kind not in (CHOICE, SHORT):
        raise ValueError(f"mantis: got the question type {kind!r}; wanted '{CHOICE}' or '{SHORT}'.")
    fields = {
        name: str(doc.fields[name]) for name in ("question_type", "category", "data_source") if name in doc.fields
    }
    return Example(
        str(doc.fields["id"]),
        doc.images["images"],
        doc.fields["question"],
        (doc.fields["answer"],),
        options=multiple_choice.lettered(doc.fields["options"] or ()),
        fields=fields,
    )


def _message(example: Example, profile: Profile) -> Message:
    question = example.question
    options = list(example.options.values())
    if profile == "official" and _is_choice(example):
        question += "".join(f"\n {_with_letter(letter, text)}" for letter, text in example.options.items())
    text = f"{question}\n{multiple_choice.LETTER_DIRECTLY}" if _is_choice(example) else _SHORT_PROMPT.format(question)
    if profile == "lmms":
        return multiple_choice.images_first(example, f"{text}{options}" if _is_choice(example) else text)
    text = TAG * (len(example.images) - text.count(TAG)) + text
    parts: list[str | int] = []
    for number, piece in enumerate(text.split(TAG)):
        parts += [piece] if piece.strip("\n ") else []
        parts += [number] if number < len(example.images) else []
    return tuple(parts)


def _with_letter(letter: str, text: str) -> str:
    has_letter = any(f"{letter}{mark}" in text.upper() for mark in "):.")
    return text if has_letter else f"({letter}) {text}"


def _is_choice(example: Example) -> bool:
    return example.fields["question_type"] == CHOICE


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    gold = multiple_choice.first_answer(example)
    if not _is_choice(example):
        reading = mantis.read_short(answer, gold)
        return Scored(float(reading.is_right), reading.text or None)
    reading = mantis.read_choice(answer, gold, list(example.options.values()))
    return Scored(float(reading.is_right), reading.text if reading.is_right else reading.letter)


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    if profile == "lmms":
        return {"mantis_score": multiple_choice.accuracy(predictions)}
    table = {"Overall": multiple_choice.accuracy(predictions)}
    for name, kind in (("Multi-choice", CHOICE), ("Short-answer", SHORT)):
        if part := [one for one in predictions if one.example.fields["question_type"] == kind]:
            table[name] = multiple_choice.accuracy(part)
    return table


MANTIS = Benchmark(
    name="mantis",
    title="Mantis-Eval",
    source="huggingface.co/datasets/TIGER-Lab/Mantis-Eval",
    published=(
        Parquet(
            "TIGER-Lab/Mantis-Eval",
            "**/test-*.parquet",
            _of_doc,
            ("id", "question_type", "question", "options", "answer"),
            ("images",),
            profiles=PROFILES,
        ),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    headline={"lmms": "mantis_score", "paper": "Overall"},
    answering=lmms_answering(64, temperature=0.2),
    profiles=PROFILES,
)
