"""A benchmark's scores as they are kept and shown: with their errors, whose rules they follow, and what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
import hashlib
import json
import math
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.evaluation.model_names import without_folder
from xgenmm_jax.evaluation.prediction_files import Head
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Choice, Estimates
from xgenmm_jax.paths import Path

SUFFIX, JUDGED_SUFFIX = ".scores.json", ".judged.scores.json"
"""Of files of scores by rules alone, and with a judge: these stand beside those."""

NO_JUDGE = "none"


@dataclass(frozen=True)
class Result:
    """The scores of one benchmark.

    task: its name. headline: the name of the score that tables show, normalized: that score in [0, 100] for averages,
    nan where there is none. scores: by name, in the benchmark's units. unreadable: examples whose pictures could not be
    read, scored as wrong. left_out: rows of the files that are no examples, by reason. judge: who judged, "none" where
    rules alone did, else its model and the fingerprint of its prompt. answers: fingerprint of the predictions' texts.
    tokens: that the model was trained on in its run until these parameters; 0: not known.
    """

    task: str
    title: str
    choice: Choice
    headline: str
    normalized: float
    scores: Estimates
    model: str = ""
    unreadable: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    judge: str = NO_JUDGE
    answers: str = ""
    tokens: int = 0

    @property
    def value(self) -> Estimate:
        """The score that tables show."""
        return self.scores[self.headline]

    def to_json(self) -> dict[str, Any]:
        """Numbers that are none, such as the error of a single item, become null."""
        scores = {
            name: {
                "value": _number(one.value), "stderr": _number(one.stderr), "items": one.items,
                "unparsed": one.unparsed, **({"note": one.note} if one.note else {}),
            }
            for name, one in self.scores.items()
        }  # fmt: skip
        return {
            "task": self.task, "title": self.title, "profile": self.choice.profile, "reading": self.choice.reading,
            "reencode": self.choice.reencode, "judge": self.judge, "model": self.model, "headline": self.headline,
            "normalized": _number(self.normalized), "unreadable": self.unreadable, "left_out": dict(self.left_out),
            "answers": self.answers, "tokens": self.tokens,
            "scores": scores,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Result":
        """Of what `to_json` gave. Errors are kept, but not which examples they come from."""
        scores = {name: _estimate(one) for name, one in value["scores"].items()}
        return cls(
            value["task"], value["title"], Choice(value["profile"], value["reading"], value["reencode"]),
            value["headline"], _float(value["normalized"]), scores, value["model"], value["unreadable"],
            value["left_out"], value["judge"], value.get("answers", ""), value.get("tokens", 0),
        )  # fmt: skip


def result_of(
    benchmark: Benchmark,
    predictions: Sequence[Prediction],
    choice: Choice,
    *,
    model: str = "",
    tokens: int = 0,
    left_out: Mapping[str, int] | None = None,
) -> Result:
    """The scores of predictions that were scored by the benchmark's task of the same choice."""
    scores = benchmark.summarize(predictions, choice.profile)
    headline = benchmark.headline_of(choice.profile)
    value = scores[headline].value
    unreadable = sum(bool(prediction.example.unreadable) for prediction in predictions)
    normalized = benchmark.normalize(value) if not math.isnan(value) else math.nan
    return Result(
        benchmark.name, benchmark.title, choice, headline, normalized, scores, model, unreadable, left_out or {},
        answers=_fingerprint(predictions), tokens=tokens,
    )  # fmt: skip


def _fingerprint(predictions: Sequence[Prediction]) -> str:
    texts = sorted((prediction.example.id, prediction.text) for prediction in predictions)
    return hashlib.sha256(repr(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def rescored(benchmark: Benchmark, predictions: Sequence[Prediction], choice: Choice) -> list[Prediction]:
    """Predictions of a file with the scores that a profile gives them."""
    task = benchmark.task([prediction.example for prediction in predictions], choice)
    scores = [task.scored(prediction.text, prediction.example) for prediction in predictions]
    return [
        replace(prediction, task=benchmark.name, score=scored.score, extracted=scored.extracted)
        for prediction, scored in zip(predictions, scores, strict=True)
    ]


def head_of(benchmark: Benchmark, choice: Choice, model: str, examples: str, items: int) -> Head:
    """Of the file of a model's predictions. examples: their fingerprint."""
    decoding = repr(benchmark.answering(choice.profile)) + benchmark.asked_as
    return Head(
        benchmark.name, benchmark.version, choice.profile, choice.reading, choice.reencode, model, examples, items,
        decoding,
    )  # fmt: skip


def write(result: Result, folder: Path) -> Path:
    """NAME.scores.json in a folder, NAME.judged.scores.json where a judge took part; whole or not there."""
    path = folder / f"{result.task}{SUFFIX if result.judge == NO_JUDGE else JUDGED_SUFFIX}"
    files.write_whole(path, json.dumps(result.to_json(), indent=1) + "\n")
    return path


def read(folder: Path, judged: bool = False) -> list[Result]:
    """A folder's results, one of each task: those by rules, or with a judge where only a judge gives a score.

    judged: those with a judge, where there are. A judged result of other predictions than the rules' is passed over.
    Raises ValueError that names a file which is none.
    """
    by_rules: dict[str, Result] = {}
    by_judge: dict[str, Result] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        value = files.read_json(path)
        try:
            result = Result.from_json(value)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"'{path}' holds no scores ({error!r}); score its predictions again.") from error
        (by_judge if path.name.endswith(JUDGED_SUFFIX) else by_rules)[result.task] = result
    for task, result in by_judge.items():
        rules = by_rules.get(task, result)
        if _of_same_predictions(rules, result) and (judged or math.isnan(rules.normalized) or rules is result):
            by_rules[task] = result
    return [by_rules[task] for task in sorted(by_rules)]


def _of_same_predictions(a: Result, b: Result) -> bool:
    of_a, of_b = ((without_folder(one.model), one.choice, one.answers, one.value.items) for one in (a, b))
    return of_a == of_b


def _estimate(value: Mapping[str, Any]) -> Estimate:
    """With two groups whose parts give the same error again."""
    error = _float(value["stderr"])
    influence = {} if math.isnan(error) else {"a": error / 2, "b": -error / 2}
    return Estimate(_float(value["value"]), value["items"], value["unparsed"], value.get("note", ""), influence)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
