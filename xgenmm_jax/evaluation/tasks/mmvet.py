"""MM-Vet: 218 questions that need several abilities at once, scored by a judge from 0 to 1 (Yu et al. 2023).

Without a judge there is no score; "rule/..." are scores by a rule of our own (`mmvet_rule`), of no toolkit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
import math
from pathlib import Path

from xgenmm_jax import files
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Original, Tsv
from xgenmm_jax.evaluation.scorers import estimates, mmvet
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.tasks import multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

PROFILES: tuple[Profile, ...] = (*VLMEVALKIT, "official")
JUDGED = "MM-Vet is scored by a judge model; without one there is no score"
RULE_NOTE = "share of the right answer's elements in the answer, a rule of our own; not comparable with judged scores"


def _of_json(folder: Path) -> Iterator[Example]:
    path = folder / "mm-vet" / "mm-vet.json"
    whole = files.read_json(path)
    if not isinstance(whole, dict):
        raise ValueError(f"benchmark: '{path}' is no object of questions by name; copy it again.")
    for name, row in zip(whole, originals.rows_of(whole.values(), path), strict=True):
        image, question, answer = originals.texts(row, ("imagename", "question", "answer"), path)
        images, unreadable = originals.picture(path.parent / "images", image)
        fields = {"category": ",".join(originals.text_list(row, "capability", path))}
        yield Example(name, images, question, (answer,), fields=fields, unreadable=unreadable)


def _message(example: Example, profile: Profile) -> Message:
    return multiple_choice.images_first(example, example.question)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    return Scored(mmvet.mmvet_rule(answer, multiple_choice.first_answer(example)), answer)


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """Lines of VLMEvalKit's two tables: capabilities, and combinations of them."""
    names = {mmvet.combination_of(prediction.example.fields.get("category", "")) for prediction in predictions}
    table: Estimates = {
        "Overall": Estimate(math.nan, len(predictions), note=JUDGED),
        "rule/Overall": _line(predictions, [1] * len(predictions)),
    }
    for name in dict.fromkeys([*mmvet.CAPABILITIES, *sorted(names)]):
        times = [mmvet.times_counted(name, one.example.fields.get("category", "")) for one in predictions]
        if any(times):
            table[f"rule/{name}"] = _line(predictions, times)
    return table


def _line(predictions: Sequence[Prediction], times: Sequence[int]) -> Estimate:
    counted = zip(predictions, times, strict=True)
    terms = [Term(one.example.id, count * one.score, count) for one, count in counted if count]
    return replace(estimates.ratio(terms), note=RULE_NOTE)


MMVET = Benchmark(
    name="mmvet",
    title="MM-Vet",
    source="github.com/yuweihao/MM-Vet/releases and opencompass.openxlab.space/utils/VLMEval/MMVet.tsv",
    published=(
        Tsv("MMVet", multiple_choice.example_of_row, ("question", "answer", "category")),
        Original(("mm-vet/mm-vet.json", "mm-vet/images"), _of_json, PROFILES),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    profiles=PROFILES,
    judged=JUDGED,
)
