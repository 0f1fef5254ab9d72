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
from xgenmm_jax.evaluation.tasks.judging import Judging
from xgenmm_jax.evaluation.tasks.task import Scored

PROFILES: tuple[Profile, ...] = (*VLMEVALKIT, "official")
JUDGED = "MM-Vet is scored by a judge model; without one there is no score"
PROMPT = """\
Compare what somebody answered to a question about a picture with the ground truth, and grade how correct it is.

In the ground truth, <AND> stands between parts that a right answer must all contain, and <OR> between alternatives of
which one is enough. The grade is a number from 0.0, nothing of it is right, in steps of 0.1 to 1.0, all of it is
right. Other words for the same thing are as good. Grade the last row of the table: write its number and nothing else.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
Which fruits lie in the bowl? | apple <AND> pear | A banana and two plums. | 0.0
Which fruits lie in the bowl? | apple <AND> pear | There is an apple, and something behind it. | 0.5
Which fruits lie in the bowl? | apple <AND> pear | A red apple and a pear. | 1.0
What does the meter show? | 3.5 <OR> 3.6 | 3.6 | 1.0
What does the meter show? | 3.5 <OR> 3.6 | 36 | 0.0
Why do they laugh? | The dog wears the man's hat, and the man looks for it under the chair. | The man cannot find his \
hat. | 0.4
Why do they laugh? | The dog wears the man's hat, and the man looks for it under the chair. | He searches below his \
chair for the hat that his dog has on. | 1.0
{question} | {answer} | {prediction} |"""
RULE_NOTE = "share of the right answer's elements in the answer, a rule of our own; not comparable with judged scores"


def _of_json(folder: Path) -> Iterator[Example]:
    path = folder / "mm-vet" / "mm-vet.json"
    whole = files.read_json(path)
    if not isinstance(whole, dict):
        raise ValueError(f"benchmark: '{path}' is no object of questions by name; copy it again.")
    for name, row in zip(whole, originals.rows_of(whole.values(), path), strict=True):
        image, question, answer = originals.texts(row, ("imagename", "question", "answer"), path)
        images, unreadable = originals.image_below(path.parent / "images", image)
        fields = {"category": ",".join(originals.text_list(row, "capability", path))}
        yield Example(name, images, question, (answer,), fields=fields, unreadable=unreadable)


def _message(example: Example, profile: Profile) -> Message:
    return multiple_choice.images_first(example, example.question)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    return Scored(mmvet.mmvet_rule(answer, multiple_choice.first_answer(example)), answer)


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """Lines of VLMEvalKit's two tables: capabilities, and combinations of them."""
    table: Estimates = {
        "Overall": Estimate(math.nan, len(predictions), note=JUDGED),
        "rule/Overall": _line(predictions, [1] * len(predictions)),
    }
    return table | {f"rule/{name}": _line(predictions, times) for name, times in _lines(predictions)}


def _lines(predictions: Sequence[Prediction]) -> Iterator[tuple[str, list[int]]]:
    """Names of both tables' lines, with how often each prediction counts there."""
    names = {mmvet.combination_of(prediction.example.fields.get("category", "")) for prediction in predictions}
    for name in dict.fromkeys([*mmvet.CAPABILITIES, *sorted(names)]):
        times = [mmvet.times_counted(name, one.example.fields.get("category", "")) for one in predictions]
        if any(times):
            yield name, times


def _line(predictions: Sequence[Prediction], times: Sequence[int], note: str = RULE_NOTE) -> Estimate:
    counted = zip(predictions, times, strict=True)
    terms = [Term(one.example.id, count * one.score, count, one.extracted is None) for one, count in counted if count]
    return replace(estimates.ratio(terms), note=note)


def _for_judge(example: Example) -> Example:
    """With spaces around what joins a ground truth's parts, as VLMEvalKit writes them."""
    padded = [answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ") for answer in example.answers]
    return replace(example, answers=tuple(padded))


def _read_score(reply: str, example: Example, profile: Profile) -> Scored | None:
    try:
        score = float(reply)
    except ValueError:
        return None
    return Scored(score, reply.strip()) if 0.0 <= score <= 1.0 else None


def _summarize_judged(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """The toolkit's lines, of the judge's scores."""
    table = {"Overall": _line(predictions, [1] * len(predictions), "")}
    return table | {name: _line(predictions, times, "") for name, times in _lines(predictions)}


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
    judging=Judging(
        PROMPT,
        (0.0, 0.5, 1.0, 1.5, 2.0),
        _read_score,
        _for_judge,
        scores_all=True,
        summarize=_summarize_judged,
        profiles=PROFILES,
    ),
)
