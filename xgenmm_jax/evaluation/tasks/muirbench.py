"""MuirBench, test: 2,600 multiple-choice questions over several images, half of them unanswerable (Wang et al. 2024).

VLMEvalKit sets each image where the text says `<image>`; images without a tag are not shown, so that a question without
tags comes without any. lmms-eval shows all images first and leaves the tags in the text.
"""

from collections.abc import Sequence

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import PROFILES, Profile
from xgenmm_jax.evaluation.published.files import Doc, Parquet, Tsv
from xgenmm_jax.evaluation.scorers import mmmu
from xgenmm_jax.evaluation.scorers.lmms_choices import leading_letter
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

TAG = "<image>"
_HINT = "Hint: Please provide the correct option letter, such as A, B, C, D, directly."


def _of_doc(doc: Doc) -> Example:
    fields = doc.fields
    return Example(
        str(fields["idx"]),
        doc.images["image_list"],
        fields["question"],
        (fields["answer"],),
        options=multiple_choice.lettered(fields["options"]),
        fields={name: str(fields[name]) for name in ("image_relation", "image_type") if name in fields}
        | {"category": fields["task"]},
    )


def _message(example: Example, profile: Profile) -> Message:
    lines = multiple_choice.option_lines(example)
    if profile == "lmms":
        text = f"{example.question}\n{lines}\n{multiple_choice.LETTER_DIRECTLY}"
        return multiple_choice.images_first(example, text)
    if profile == "official":
        choices = "".join(f"\n({letter}) {text}" for letter, text in example.options.items())
        text = f"Question: {example.question}\nChoices:{choices}\n{_HINT}\nAnswer:"
    else:
        text = f"{example.question}\n"
        text += f"{lines}\n{multiple_choice.LETTER_DIRECTLY}" if example.options else ""
    return interleaved(text, len(example.images))


def interleaved(text: str, images: int) -> Message:
    """The text cut at its tags, image k at tag k as far as there are images; empty texts are left out."""
    parts: list[str | int] = []
    for number, piece in enumerate(text.split(TAG)):
        if 0 < number <= images:
            parts.append(number - 1)
        if piece:
            parts.append(piece)
    return tuple(parts)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    gold = multiple_choice.first_answer(example)
    if profile == "lmms":
        text = leading_letter(answer).lower().strip()
        return Scored(float(text == gold.lower().strip()), text.upper() if text.upper() in example.options else None)
    if profile == "official":
        letter = mmmu.read_choice(answer, example.options, profile)
        return Scored(float(letter is not None and letter == gold), letter)
    return multiple_choice.score_choice(answer, example, profile)


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    table = multiple_choice.accuracy_table(predictions, multiple_choice.same_images)
    if profile == "lmms":
        return {"muirbench_score_overall": table.pop("Overall"), **table}
    return table


MUIRBENCH = Benchmark(
    name="muirbench",
    title="MuirBench",
    source="huggingface.co/datasets/MUIRBENCH/MUIRBENCH, opencompass.openxlab.space/utils/VLMEval/MUIRBench.tsv",
    published=(
        Tsv("MUIRBench", multiple_choice.example_of_row),
        Parquet(
            "MUIRBENCH/MUIRBENCH",
            "data/test-*.parquet",
            _of_doc,
            ("idx", "task", "question", "options", "answer"),
            ("image_list",),
            profiles=PROFILES,
        ),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_letter(),
    headline={"paper": "Overall", "lmms": "muirbench_score_overall"},
    answering=lmms_answering(16),
)
