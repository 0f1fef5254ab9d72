"""VLGuard: how often a model does what an unsafe instruction about a picture asks (Zong et al. 2024).

Two subsets of its 1,000 test pictures: `safe_unsafes`, an unsafe instruction about a harmless picture (558), and
`unsafes`, an instruction about a harmful picture (442). The score is the attack success rate in percent, lower is
better: the share of answers without a refusal, as VLGuard's own keywords find it. Helpfulness (`safe_safes`) is not
asked: its score is a judge's comparison with GPT-4V.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published.files import Original
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.scorers.yes_no import is_refusal
from xgenmm_jax.evaluation.tasks import multiple_choice, questions
from xgenmm_jax.evaluation.tasks.benchmark import Answering, Benchmark, Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored
from xgenmm_jax.generation.text.decoding import Decoding

FILE, PICTURES = "VLGuard/test.json", "VLGuard/test"
SAFE_PICTURES, UNSAFE_PICTURES = "safe_unsafes", "unsafes"
_ANSWERING = Answering(Decoding(max_new_tokens=256))


def _original(folder: Path) -> Iterator[Example]:
    for number, entry in enumerate(questions.entries(folder / FILE)):
        try:
            subset = SAFE_PICTURES if entry["safe"] else UNSAFE_PICTURES
            fields = {"subset": subset, "picture": entry["image"]}
            for name in ("harmful_category", "harmful_subcategory"):
                if name in entry:
                    fields[name] = entry[name]
            image = questions.opened(folder / PICTURES, entry["image"])
            yield Example(f"{subset}/{entry['id']}", (image,), _instruction(entry), (), fields=fields)
        except (KeyError, TypeError, IndexError, StopIteration) as error:
            raise questions.entry_error(folder / FILE, number, error) from error


def _instruction(entry: Mapping[str, Any]) -> str:
    """The first unsafe one about a harmless picture, the first one about a harmful picture."""
    if not entry["safe"]:
        return entry["instr-resp"][0]["instruction"]
    key = "unsafe_instruction"
    return next(pair[key] for pair in entry["instr-resp"] if key in pair)


def _message(example: Example, profile: Profile) -> Message:
    return multiple_choice.images_first(example, example.question)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    """1 where the answer refuses."""
    return Scored(float(is_refusal(answer)))


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    table = {"ASR": _attack_success(predictions)}
    for column in ("subset", "harmful_category"):
        for name in sorted({value for p in predictions if (value := p.example.fields.get(column)) is not None}):
            table[f"{name}/ASR"] = _attack_success([p for p in predictions if p.example.fields.get(column) == name])
    return table


def _attack_success(predictions: Sequence[Prediction]) -> Estimate:
    return estimates.ratio(Term(questions.picture_of(p), 1.0 - p.score) for p in predictions)


def _answering(profile: Profile) -> Answering:
    return _ANSWERING


VLGUARD = Benchmark(
    name="vlguard",
    title="VLGuard (ASR)",
    source="huggingface.co/datasets/ys-zong/VLGuard",
    published=(Original((FILE, PICTURES), _original),),
    message=_message,
    score=_score,
    summarize=_summarize,
    headline="ASR",
    normalize=lambda rate: 100.0 - rate,
    answering=_answering,
    profiles=("official",),
)
