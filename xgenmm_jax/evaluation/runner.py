"""Measures asked of a model: all prompts of all measures in few batches, then every answer scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import time
from typing import Any

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Picture
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator

Metrics = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One question of a measure.

    truth: every right answer; what the scorer compares with. pictures: those that the model sees.
    """

    id: str
    question: str
    truth: tuple[str, ...]
    pictures: tuple[Picture, ...]
    prompt: Prompt = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """What a model said to a case, and its score in [0, 1]."""

    measure: str
    case: Case
    text: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "measure": self.measure,
            "id": self.case.id,
            "question": self.case.question,
            "truth": list(self.case.truth),
            "answer": self.text,
            "score": round(self.score, 4),
        }


Score = Callable[[str, tuple[str, ...]], float]
"""(answer, right answers) -> score in [0, 1]."""

Summary = Callable[[Sequence[Answer]], Metrics]
"""All answers of a measure to its metrics."""


def mean_score(answers: Sequence[Answer]) -> Metrics:
    """The mean score under the measure's own name."""
    return {answers[0].measure: sum(answer.score for answer in answers) / len(answers)}


@dataclass(frozen=True)
class Measure:
    """Cases that are asked and scored alike.

    anyres: how pictures are cut, None: as in training. summarize: by default the mean score is the measure's metric.
    """

    name: str
    cases: tuple[Case, ...]
    score: Score
    max_new_tokens: int
    anyres: AnyRes | None = None
    summarize: Summary = mean_score


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name and every answer behind them."""

    metrics: Metrics
    answers: tuple[Answer, ...]
    seconds: float


def evaluate(generator: Generator, measures: Sequence[Measure]) -> Evaluation:
    """Asks and scores. Measures that share a limit and a way to cut pictures are asked together."""
    started = time.monotonic()
    groups: dict[tuple[int, AnyRes | None], list[Measure]] = {}
    for measure in measures:
        if not measure.cases:
            raise ValueError(f"evaluation: {measure.name} has no cases; ask for 1 item or more")
        groups.setdefault((measure.max_new_tokens, measure.anyres), []).append(measure)

    texts: dict[str, list[str]] = {}
    for (max_new_tokens, anyres), group in groups.items():
        prompts = [case.prompt for measure in group for case in measure.cases]
        said = iter(generator.generate(prompts, Decoding(max_new_tokens), anyres=anyres))
        for measure in group:
            texts[measure.name] = [next(said) for _ in measure.cases]

    metrics: Metrics = {}
    answers: list[Answer] = []
    for measure in measures:
        own = [
            Answer(measure.name, case, text, float(measure.score(text, case.truth)))
            for case, text in zip(measure.cases, texts[measure.name], strict=True)
        ]
        metrics |= measure.summarize(own)
        answers += own
    return Evaluation(metrics, tuple(answers), time.monotonic() - started)
