"""BLINK, validation: 14 tasks of perception, many over several images (Fu et al. 2024).

VLMEvalKit and lmms-eval average over all rows, the authors over the 14 tasks. VLMEvalKit's table was replaced on 11 May
2026, with corrected answers of Relative_Reflectance: a number is of the one or of the other file.
"""

from collections.abc import Sequence

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import PROFILES, VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published.files import Doc, Parquet, Tsv
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.lmms_choices import extract_blink_letter
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

_COLUMNS = tuple(f"image_{number}" for number in range(1, 5))
_ABOUT_PEOPLE = ("Forensic_Detection", "Jigsaw", "Art_Style")
"""Tasks in front of whose questions the authors' script sets a disclaimer."""
_DISCLAIMER = (
    "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to give your "
    "assessment on this question. You don't need to identify the real people. You just need to analyze based on the "
    "information I gave you.\n\n"
)


def _of_doc(doc: Doc) -> Example:
    fields = doc.fields
    return Example(
        str(fields["idx"]),
        tuple(image for column in _COLUMNS for image in doc.images[column]),
        fields["question"],
        (fields["answer"].strip("()"),),
        options=multiple_choice.lettered(fields["choices"]),
        fields={"category": fields["sub_task"], "split": "val", "prompt": fields["prompt"]},
    )


def _message(example: Example, profile: Profile) -> Message:
    if profile in VLMEVALKIT:
        return multiple_choice.choose_vlmevalkit(example, profile)
    text = example.fields["prompt"]
    if profile == "lmms":
        letters = ", ".join(example.options)
        text = f"Note: You only need to respond with {letters} without providing any additional information.\n{text}"
    elif example.fields["category"] in _ABOUT_PEOPLE:
        text = _DISCLAIMER + text
    return multiple_choice.images_first(example, text)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    if profile in VLMEVALKIT:
        return multiple_choice.score_choice(answer, example, profile)
    letters = "".join(example.options)
    letter = extract_blink_letter(answer, letters) if profile == "lmms" else _official_letter(answer, letters)
    return Scored(float(letter is not None and letter == multiple_choice.first_answer(example)), letter)


def _official_letter(answer: str, letters: str) -> str | None:
    """A letter alone, or the one "(B)" that is a word of the last paragraph, else of the whole; None: a judge is asked.

    Source: zeyofu/BLINK_Benchmark eval/test_benchmark.py (3 July 2024).
    """
    if answer in tuple("ABCDE"):
        return answer
    named = [{word for word in part.split() if word in _bracketed(letters)} for part in (answer, _last(answer))]
    words = next((words for words in reversed(named) if len(words) == 1), set())
    return next(iter(words)).strip("()") if words else None


def _bracketed(letters: str) -> list[str]:
    return [f"({letter})" for letter in letters]


def _last(answer: str) -> str:
    return answer.split("\n\n")[-1]


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """Every profile's table, and the authors' mean over tasks."""
    by_task: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_task.setdefault(prediction.example.fields.get("category", ""), []).append(prediction)
    tasks = {name: multiple_choice.accuracy(part) for name, part in sorted(by_task.items())}
    total = estimates.average(list(tasks.values()))
    if profile == "official":
        return {"Total": total, **tasks}
    if profile == "lmms":
        named = {f"blink_{name.lower().replace('-', '_')}": score for name, score in tasks.items()}
        return {"blink_acc": multiple_choice.accuracy(predictions), **named, "Total": total}
    return {**multiple_choice.accuracy_table(predictions), "Total": total}


BLINK = Benchmark(
    name="blink",
    title="BLINK",
    source="huggingface.co/datasets/BLINK-Benchmark/BLINK and opencompass.openxlab.space/utils/VLMEval/BLINK.tsv",
    published=(
        Tsv("BLINK", multiple_choice.example_of_split("val"), profiles=VLMEVALKIT),
        Parquet(
            "BLINK-Benchmark/BLINK",
            "*/val-*.parquet",
            _of_doc,
            ("idx", "question", "sub_task", "choices", "answer", "prompt"),
            _COLUMNS,
            profiles=PROFILES,
            folders=14,
        ),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_letter(),
    headline={"paper": "val/Overall", "lmms": "blink_acc", "official": "Total"},
    answering=lmms_answering(),
)
