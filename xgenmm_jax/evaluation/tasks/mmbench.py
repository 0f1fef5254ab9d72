"""MMBench, English development set, version 1.0: each question in every rotation of its options (Liu et al. 2023).

A question is right where all its rotations are. Row k of a question has the index of the first plus k million.
"""

from collections.abc import Sequence
from dataclasses import replace

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published.files import Doc, Parquet, Tsv
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers.choices import group_hits
from xgenmm_jax.evaluation.scorers.lmms_choices import extract_mmbench_letter
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

ROTATION = 10**6
"""Between the indices of a question's rows."""
_MISSING = "nan"
"""How the hub's set writes an option or a hint that is none."""


def _of_row(row: Row) -> Example:
    example = multiple_choice.example_of_row(row)
    group = example.fields.get("g_index", _group(row.index))
    return replace(example, fields={"split": "dev", **example.fields, "group": group})


def _of_doc(doc: Doc) -> Example:
    """Options are kept as the hub writes them: lmms-eval does not show "nan", but finds its text in an answer."""
    fields = doc.fields
    options = {letter: fields.get(letter, _MISSING) for letter in "ABCD"} | {"E": fields.get("E")}
    columns = {"category": fields["category"], "l2-category": fields["L2-category"], "hint": fields.get("hint")}
    index = str(fields["index"])
    return Example(
        index,
        doc.images["image"],
        fields["question"],
        (fields["answer"],),
        options={letter: str(text) for letter, text in options.items() if text is not None},
        fields={name: str(text) for name, text in columns.items() if text is not None} | {"group": _group(index)},
    )


def _group(index: str) -> str:
    if not index.isdecimal():
        raise ValueError(f"mmbench: got the index '{index}'; wanted a whole number, of rotations a million apart.")
    return str(int(index) % ROTATION)


def _message(example: Example, profile: Profile) -> Message:
    if profile != "lmms":
        return multiple_choice.choose_vlmevalkit(example, profile)
    hint = example.fields.get("hint", _MISSING)
    question = example.question if hint == _MISSING else f"{hint} {example.question}"
    options = [f"\n{letter}. {text}" for letter, text in example.options.items() if text and text != _MISSING]
    text = f"{question} There are several options:{''.join(options)}".rstrip("\n")
    return multiple_choice.images_first(example, f"{text}\n\n{multiple_choice.LETTER_DIRECTLY}")


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    """Of one row."""
    if profile == "lmms":
        letter = extract_mmbench_letter(answer, example.options)
        return Scored(float(letter is not None and letter == multiple_choice.first_answer(example)), letter)
    return multiple_choice.score_choice(answer, example, profile)


def questions(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The prediction of each question's first row, with the score of all its rows; unparsed where one row is.

    Rows without a first row are of no question, as in the toolkits.
    """
    groups = [prediction.example.fields["group"] for prediction in predictions]
    hits = group_hits(
        (group, "right" if prediction.score == 1.0 else None, "right")
        for group, prediction in zip(groups, predictions, strict=True)
    )
    unparsed = {group for group, prediction in zip(groups, predictions, strict=True) if prediction.extracted is None}
    return [
        replace(prediction, score=float(hits[group]), extracted=None if group in unparsed else prediction.extracted)
        for group, prediction in zip(groups, predictions, strict=True)
        if prediction.example.id == group
    ]


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    answered = questions(predictions)
    if profile != "lmms":
        return multiple_choice.accuracy_table(answered, multiple_choice.same_images)
    # lmms-eval's rows have no split, VLMEvalKit's have; its names have none.
    table = multiple_choice.accuracy_table(list(map(_without_split, answered)), multiple_choice.same_images)
    return {"gpt_eval_score": table.pop("Overall"), **table}


def _without_split(prediction: Prediction) -> Prediction:
    fields = {name: value for name, value in prediction.example.fields.items() if name != "split"}
    return replace(prediction, example=replace(prediction.example, fields=fields))


MMBENCH = Benchmark(
    name="mmbench",
    title="MMBench dev",
    source="github.com/open-compass/MMBench and opencompass.openxlab.space/utils/VLMEval/MMBench_DEV_EN.tsv",
    published=(
        Tsv("MMBench_DEV_EN", _of_row),
        Parquet(
            "lmms-lab/MMBench",
            "en/dev-*.parquet",
            _of_doc,
            ("index", "question", "answer", "A", "B", "category", "L2-category"),
            profiles=("lmms",),
        ),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_letter(),
    headline={"paper": "dev/Overall", "lmms": "gpt_eval_score"},
    answering=lmms_answering(until=("ASSISTANT:",)),
    profiles=(*VLMEVALKIT, "lmms"),
)
