"""POPE: whether a thing is in the picture, asked of 500 COCO pictures (Li et al. 2023).

The absent things are drawn at random, among the popular ones, or among those that go with what is there (adversarial):
three splits of 3,000 questions. Many questions stand in several splits: each is asked once, and counted in every split
that names it. VLMEvalKit's table has 5,127 questions in 8,910 rows: it drops repeats within the random split.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import math
from pathlib import Path

from xgenmm_jax import files
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.scorers.yes_no import pope_label
from xgenmm_jax.evaluation.tasks import judging, multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

SPLITS = ("random", "popular", "adversarial")
_LAYOUTS = (("", "val2014"), ("pope/", "coco/val2014"))
"""Folders of the authors' three files, and of COCO's pictures."""


def _of_doc(doc: Doc) -> Example:
    fields = {"category": doc.fields["category"]}
    if source := doc.fields.get("image_source"):
        fields["image"] = source
    return Example(doc.index, doc.images["image"], doc.fields["question"], (doc.fields["answer"],), fields=fields)


def _files(start: str) -> tuple[str, ...]:
    return tuple(f"{start}coco_pope_{split}.json" for split in SPLITS)


def _original(folder: Path, start: str, images_folder: str) -> Iterator[Example]:
    """The authors' three files of JSON lines; equal questions about a picture become one that names all its splits."""
    splits: dict[tuple[str, str, str], list[str]] = {}
    for split, name in zip(SPLITS, _files(start), strict=True):
        path = folder / name
        for row in originals.rows_of((value for _, value in files.json_lines(path)), path):
            image, text, label = originals.texts(row, ("image", "text", "label"), path)
            splits.setdefault((image, text, label.strip().capitalize()), []).append(split)
    opened: dict[str, tuple[tuple[LazyImage, ...], str]] = {}
    for number, ((name, text, label), named) in enumerate(splits.items()):
        if name not in opened:
            opened[name] = originals.image_below(folder / images_folder, name)
        images, unreadable = opened[name]
        fields = {"category": ",".join(named), "image": name}
        yield Example(str(number), images, text, (label,), fields=fields, unreadable=unreadable)


def _message(example: Example, profile: Profile) -> Message:
    text = example.question.strip() + questions.BRIEFLY if profile == "lmms" else example.question
    return multiple_choice.images_first(example, text)


def _truth(example: Example, profile: Profile) -> str:
    truth = multiple_choice.first_answer(example)
    return truth.lower().strip().capitalize() if profile == "lmms" else truth


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    return questions.scored_label(pope_label(answer, profile), _truth(example, profile))


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    by_split: dict[str, list[Prediction]] = {}
    # A row without a split counts once, in the whole.
    every = [prediction for prediction in predictions if "category" not in prediction.example.fields]
    for prediction in predictions:
        for split in prediction.example.fields.get("category", "").split(","):
            if split:
                by_split.setdefault(split, []).append(prediction)
                every.append(prediction)
    table = _scores(every, profile)
    for split in sorted(by_split):
        table |= {f"{split}/{name}": score for name, score in _scores(by_split[split], profile).items()}
    return table


def _scores(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """In percent; "Yes" is the positive label, an answer of which nothing could be read is not yes and wrong.

    lmms-eval counts as missed only answers that are "no", and its yes ratio is that of the truths.
    """

    def score(part: str, whole: str) -> Estimate:
        terms = [
            Term(questions.image_group(p), counts[part], counts[whole], p.extracted is None)
            for p, counts in zip(predictions, of_each, strict=True)
        ]
        result = estimates.ratio(terms)
        if profile == "official" and not sum(counts[whole] for counts in of_each):
            return dataclasses.replace(result, value=math.nan, note="nothing to divide by: the script stops")
        return result

    of_each = [_counts(prediction, profile) for prediction in predictions]
    names = ("Overall", "acc", "precision", "recall", "yes_ratio")
    if profile == "lmms":
        names = ("pope_f1_score", "pope_accuracy", "pope_precision", "pope_recall", "pope_yes_ratio")
    ratios = (
        ("twice_found", "found_or_said"), ("right", "one"), ("found", "said_yes"), ("found", "to_find"),
        ("counted_yes", "one"),
    )  # fmt: skip
    return {name: score(part, whole) for name, (part, whole) in zip(names, ratios, strict=True)}


def _counts(prediction: Prediction, profile: Profile) -> dict[str, float]:
    """One answer's parts of the ratios."""
    is_yes, said = _truth(prediction.example, profile) == "Yes", prediction.extracted
    said_yes = said == "Yes"
    to_find = is_yes and (said is not None or profile != "lmms")
    true_yes = is_yes and said_yes
    return {
        "one": 1.0,
        "right": prediction.score,
        "found": float(true_yes),
        "twice_found": 2.0 * true_yes,
        "said_yes": float(said_yes),
        "to_find": float(to_find),
        "found_or_said": float(said_yes) + float(to_find),
        "counted_yes": float(is_yes if profile == "lmms" else said_yes),
    }


POPE = Benchmark(
    name="pope",
    title="POPE",
    source="github.com/RUCAIBox/POPE and opencompass.openxlab.space/utils/VLMEval/POPE.tsv",
    published=(
        Tsv("POPE", questions.one_answer, ("question", "answer", "category")),
        Parquet("lmms-lab-encoder/POPE", "data/test-*.parquet", _of_doc, ("question", "answer", "category")),
        *(
            Original((*_files(start), images), functools.partial(_original, start=start, images_folder=images))
            for start, images in _LAYOUTS
        ),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_yes_no(_score),
    headline={"paper": "Overall", "lmms": "pope_f1_score"},
    answering=lmms_answering(128),
)
