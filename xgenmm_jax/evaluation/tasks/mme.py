"""MME: 2,374 yes or no questions, two about each picture, in 14 categories (Fu et al. 2023).

A category's score, 0 to 200, is the share of right answers plus the share of pictures whose two answers are right, in
percent each. Perception is the sum over 10 categories, reasoning over 4. The paper's column divides their sum by 28.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math
from pathlib import Path

from xgenmm_jax import files
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.scorers.yes_no import mme_label
from xgenmm_jax.evaluation.tasks import judging, multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

PERCEPTION = (
    "OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene",
)  # fmt: skip
REASONING = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")

FOLDER = "MME_Benchmark_release_version"
"""The authors' release: a folder for each category, with pictures and a text for each of the same name."""
_SUFFIXES = (".jpg", ".png", ".jpeg")
_REQUEST = " Please answer yes or no."


def _of_doc(doc: Doc) -> Example:
    fields = {"category": doc.fields["category"], "image_path": doc.fields["question_id"]}
    return Example(doc.index, doc.images["image"], doc.fields["question"], (doc.fields["answer"],), fields=fields)


def _original(folder: Path) -> Iterator[Example]:
    """Texts of lines "question TAB answer" beside their picture, or in questions_answers_YN/ beside images/."""
    for category in (*PERCEPTION, *REASONING):
        for root in (folder / FOLDER / category, folder / FOLDER / "MME_Benchmark" / category):
            for text in sorted(root.rglob("*.txt")):
                yield from _of_text(text, category)


def _of_text(text: Path, category: str) -> Iterator[Example]:
    folders = (text.parent, text.parent.parent / "images")
    named = [folder / (text.stem + suffix) for folder in folders for suffix in (*_SUFFIXES, *map(str.upper, _SUFFIXES))]
    path = next((one for one in named if one.is_file()), None)
    if path is None:
        raise ValueError(f"mme: no picture beside '{text}'; wanted '{text.stem}.jpg' or '.png'.")
    images, unreadable = originals.image_below(path.parent, path.name)
    for number, line in enumerate(line for line in files.read_lines(text) if line.strip()):
        question, tab, answer = line.rstrip().rpartition("\t")
        if not tab:
            raise ValueError(f"mme: '{text}' has a line without a tab; wanted a question, a tab and Yes or No.")
        fields = {"category": category, "image_path": f"{category}/{path.name}"}
        index = f"{category}/{text.stem}/{number}"
        yield Example(index, images, question, (answer.strip(),), fields=fields, unreadable=unreadable)


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        text = example.question.strip().replace(_REQUEST, "") + questions.BRIEFLY
        return multiple_choice.images_first(example, text)
    return multiple_choice.images_first(example, example.question)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    truth = multiple_choice.first_answer(example)
    if profile == "lmms":
        truth = truth.lower().strip().replace(".", "").capitalize()
    return questions.scored_label(mme_label(answer, profile), truth)


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    by_category: dict[str, dict[str, list[Prediction]]] = {}
    for prediction in predictions:
        fields = prediction.example.fields
        by_category.setdefault(fields["category"], {}).setdefault(fields["image_path"], []).append(prediction)
    names = sorted(by_category, key=lambda name: ([*PERCEPTION, *REASONING, name].index(name), name))
    categories = {name: _category(name, by_category[name]) for name in names}

    if profile == "lmms":
        # There all that is not perception is cognition.
        others = [name for name in names if name not in PERCEPTION]
        parts = {
            "mme_perception_score": _sum(categories, [name for name in names if name in PERCEPTION]),
            "mme_cognition_score": _sum(categories, others),
        }
    elif profile == "fork":
        parts = {
            "perception": _sum(categories, [name for name in PERCEPTION if name in categories]),
            "reasoning": _sum(categories, [name for name in REASONING if name in categories]),
        }
    else:
        parts = {"perception": _sum(categories, PERCEPTION), "reasoning": _sum(categories, REASONING)}
    total = _weighted(parts, 1.0)
    return parts | categories | {"total": total, "mme_norm": _weighted({"total": total}, 1 / 28)}


def _category(name: str, by_image: Mapping[str, Sequence[Prediction]]) -> Estimate:
    """Percent of right answers plus percent of pictures with two right ones."""
    items = sum(map(len, by_image.values()))
    unparsed = sum(prediction.extracted is None for those in by_image.values() for prediction in those)
    for image, those in by_image.items():
        if len(those) != 2:
            note = f"{len(those)} questions about '{image}', wanted 2"
            return Estimate(math.nan, items, unparsed, note)
    answers = [Term((name, image), one.score) for image, those in by_image.items() for one in those]
    whole_images = [Term((name, image), min(one.score for one in those)) for image, those in by_image.items()]
    both = estimates.combine([(1.0, estimates.ratio(answers)), (1.0, estimates.ratio(whole_images))])
    return dataclasses.replace(both, items=items, unparsed=unparsed)


def _sum(categories: Mapping[str, Estimate], names: Sequence[str]) -> Estimate:
    """nan with the reason where one of the names is missing or has no score: the toolkit stops there."""
    missing = [name for name in names if name not in categories]
    note = f"no question of {', '.join(missing)}" if missing else ""
    there = {name: categories[name] for name in names if name in categories}
    result = _weighted(there, 1.0)
    return dataclasses.replace(result, value=math.nan, note=note) if missing else result


def _weighted(parts: Mapping[str, Estimate], weight: float) -> Estimate:
    note = "; ".join(dict.fromkeys(one.note for one in parts.values() if one.note))
    return dataclasses.replace(estimates.combine([(weight, one) for one in parts.values()]), note=note)


MME = Benchmark(
    name="mme",
    title="MME (norm)",
    source="opencompass.openxlab.space/utils/VLMEval/MME.tsv and huggingface.co/datasets/lmms-lab-encoder/MME",
    published=(
        Tsv("MME", questions.one_answer, ("question", "answer", "category", "image_path")),
        Parquet(
            "lmms-lab-encoder/MME", "data/test-*.parquet", _of_doc, ("question_id", "question", "answer", "category")
        ),
        Original((FOLDER,), _original),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_yes_no(_score),
    headline="mme_norm",
    answering=lmms_answering(16),
    profiles=(*VLMEVALKIT, "lmms"),
)
