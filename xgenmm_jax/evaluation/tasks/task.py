"""A task: examples that are asked and scored alike, and the metrics that their scores become."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.evaluation.predictions import Metrics, Prediction
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.generation.text.decoding import Decoding

BuildPrompt = Callable[[Example, Tokenizer], Prompt]
"""How a model is asked an example: `prompts.ChatPrompt`, `prompts.FewShotPrompt`."""

Score = Callable[[str, Example], float]
"""(answer, example) -> score in [0, 1]."""

Summarize = Callable[[Sequence[Prediction]], Metrics]
"""All predictions of a task -> its metrics by name."""

ConstantAnswers = Callable[[Sequence[Example]], Mapping[str, str]]
"""Examples -> answers that a model could always give, whatever it sees, by name; the page shows the first."""


def mean_score(predictions: Sequence[Prediction]) -> Metrics:
    """The mean score under the task's name."""
    return {predictions[0].task: sum(prediction.score for prediction in predictions) / len(predictions)}


@dataclass(frozen=True)
class Task:
    """Examples that are asked and scored alike.

    examples: each use goes through them from the start. anyres: how images are cut, None: as in training. summarize: by
    default the mean score is the only metric. constant_answers: of the baselines, None: the commonest answer.
    """

    name: str
    examples: Iterable[Example]
    prompt: BuildPrompt
    score: Score
    decoding: Decoding
    anyres: AnyRes | None = None
    summarize: Summarize = mean_score
    constant_answers: ConstantAnswers | None = None
