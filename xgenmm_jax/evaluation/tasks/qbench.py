"""Q-Bench: what a picture's quality is, of one picture (Q-Bench1) and of a pair (Q-Bench2 A1), development sets.

The paper's column is the pair's: VLMEvalKit has no rule of it, lmms-eval and Mantis' script do (Wu et al. 2024).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from xgenmm_jax import files
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.scorers import mantis, mmmu
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.mmmu import rounded
from xgenmm_jax.evaluation.tasks.task import Scored

CONCERNS = ("Global Distortion", "Global Others", "Local Distortion", "Local Others")
TYPES = ("Yes/No", "How", "What")
_BLANK = "N/A"
_OPTIONS = tuple(f"option{number}" for number in range(4))
_COLUMNS = ("question", *_OPTIONS, "correct_choice", "question_type", "question_concern")


def _of_doc(doc: Doc) -> Example:
    """A row of either set on the hub; a blank option is "N/A"."""
    texts = [doc.fields.get(name) for name in _OPTIONS]
    options = multiple_choice.lettered([text for text in texts if text not in (_BLANK, None)])
    read = texts.index(_BLANK) if _BLANK in texts else len(texts)
    images = doc.images["image"] if "image" in doc.images else (*doc.images["image1"], *doc.images["image2"])
    return Example(
        str(doc.fields.get("id", doc.index)),
        images,
        doc.fields["question"],
        (doc.fields["correct_choice"],),
        options=options,
        fields={**_kind(doc.fields["question_type"], doc.fields["question_concern"]), "options_read": str(read)},
    )


def _kind(question_type: int, concern: int) -> dict[str, str]:
    """By the numbers of the published rows."""
    fields = {}
    if concern in range(len(CONCERNS)):
        fields["category"] = CONCERNS[concern]
    if question_type in range(len(TYPES)):
        fields["question_type"] = TYPES[question_type]
    return fields


def _of_json_lines(folder: Path) -> Iterator[Example]:
    """q-bench2-a1-dev.jsonl, with the two images of a pair in all_single_images.

    Its `img_path` names the picture that the authors joined of both: "llvisionqa_compare_dev\\\\a.jpg_cat_b.jpg.jpg".
    """
    path = folder / "q-bench2" / "q-bench2-a1-dev.jsonl"
    for number, row in enumerate(originals.rows_of((value for _, value in files.json_lines(path)), path)):
        joined, question, gold = originals.texts(row, ("img_path", "question", "correct_choice"), path)
        names = PurePosixPath(joined.replace("\\", "/")).name.removesuffix(".jpg").split("_cat_")
        if len(names) != 2:
            raise ValueError(f"benchmark: '{path}' has img_path '{joined}'; wanted A.jpg_cat_B.jpg.jpg of a pair.")
        images: list[LazyImage] = []
        unreadable = ""
        for name in names:
            opened, why = originals.image_below(folder / "q-bench2" / "all_single_images", name)
            images += opened
            unreadable = unreadable or why
        options = multiple_choice.lettered(originals.text_list(row, "candidates", path))
        yield Example(
            f"qbench2-a1-{number}",
            () if unreadable else tuple(images),
            question,
            (gold,),
            options=options,
            fields=_kind(row.get("type", -1), row.get("concern", -1)),
            unreadable=unreadable,
        )


def _message(example: Example, profile: Profile) -> Message:
    if profile in VLMEVALKIT:
        return multiple_choice.choose_vlmevalkit(example, profile)
    if profile == "official":
        options = "".join(f"\n {option}" for option in _bracketed(example))
        text = f"{example.question}{options}\n{multiple_choice.LETTER_DIRECTLY}"
    else:
        text = f"{example.question}\n{multiple_choice.option_lines(example)}\n{multiple_choice.LETTER_DIRECTLY}\n"
    return multiple_choice.images_first(example, text)


def _bracketed(example: Example) -> list[str]:
    return [f"({letter}) {text}" for letter, text in example.options.items()]


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    gold = multiple_choice.first_answer(example)
    if profile in VLMEVALKIT:
        return multiple_choice.score_choice(answer, example, profile)
    if profile == "official":
        reading = mantis.read_choice(answer, gold, _bracketed(example))
        return Scored(float(reading.is_right), reading.text if reading.is_right else reading.letter)
    # lmms-eval shows every option, and reads those in front of the first blank one.
    options = list(example.options.items())[: int(example.fields.get("options_read", len(example.options)))]
    letter = mmmu.read_choice(answer, dict(options), profile)
    return Scored(float(letter is not None and letter == gold), letter)


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    if profile in VLMEVALKIT:
        return multiple_choice.accuracy_table(predictions, multiple_choice.same_images)
    table = {"qbench_acc" if profile == "lmms" else "Overall": _accuracy(predictions)}
    for column, names in (("category", CONCERNS), ("question_type", TYPES)):
        for name in names:
            if part := [one for one in predictions if one.example.fields.get(column) == name]:
                table[name] = _accuracy(part)
    return {name: rounded(score) for name, score in table.items()} if profile == "lmms" else table


def _accuracy(predictions: Sequence[Prediction]) -> Estimate:
    return multiple_choice.accuracy(predictions, multiple_choice.same_images)


QBENCH1 = Benchmark(
    name="qbench1",
    title="Q-Bench1",
    source="huggingface.co/datasets/q-future/Q-Bench-HF, opencompass.openxlab.space/utils/VLMEval/Q-Bench1_VAL.tsv",
    published=(
        Tsv("Q-Bench1_VAL", multiple_choice.example_of_row, profiles=VLMEVALKIT),
        Parquet("q-future/Q-Bench-HF", "data/dev-*.parquet", _of_doc, _COLUMNS, profiles=(*VLMEVALKIT, "lmms")),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_letter(),
    headline={"paper": "Overall", "lmms": "qbench_acc"},
    answering=lmms_answering(32),
    profiles=(*VLMEVALKIT, "lmms"),
)

QBENCH2 = replace(
    QBENCH1,
    name="qbench2",
    title="Q-Bench2 pair",
    source="huggingface.co/datasets/q-future/q-bench2, huggingface.co/datasets/q-future/Q-Bench2-HF",
    published=(
        Parquet(
            "q-future/Q-Bench2-HF", "data/dev-*.parquet", _of_doc, _COLUMNS, ("image1", "image2"), ("lmms", "official")
        ),
        Original(
            ("q-bench2/q-bench2-a1-dev.jsonl", "q-bench2/all_single_images"), _of_json_lines, ("lmms", "official")
        ),
    ),
    headline={"paper": "Overall", "lmms": "qbench_acc"},
    profiles=("lmms", "official"),
)
