"""A task: examples that are asked and scored alike, and the metrics that their scores become."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.evaluation.predictions import Metrics, Prediction
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.generation.text.decoding import Decoding

BuildPrompt = Callable[[Example, Tokenizer], Prompt]
"""How a model is asked an example: `prompts.ChatPrompt`, `prompts.FewShotPrompt`."""


class Scored(NamedTuple):
    """What an answer is worth. score: in [0, 1]. extracted: what was read out of the answer; None: nothing."""

    score: float
    extracted: str | None = ""


Score = Callable[[str, Example], "float | Scored"]
"""(answer, example) -> score in [0, 1], alone or with what was read out of the answer."""

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
    until: texts that end an answer and are no part of it, cut off what a model wrote. stops: those of them whose token
    ends an answer while it is written, if the tokenizer has one (`benchmark.Answering`). read_answer: what of an answer
    is scored.
    """

    name: str
    examples: Iterable[Example]
    prompt: BuildPrompt
    score: Score
    decoding: Decoding
    anyres: AnyRes | None = None
    summarize: Summarize = mean_score
    constant_answers: ConstantAnswers | None = None
    until: tuple[str, ...] = ()
    read_answer: Callable[[str], str] = str
    stops: tuple[str, ...] = ()

    def stop_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Of `stops` the ids, without those of texts that are several tokens."""
        ids = (tokenizer.id_of(text) for text in self.stops)
        return tuple(id_ for id_ in ids if id_ is not None)

    def scored(self, answer: str, example: Example) -> Scored:
        """The score of an answer; 0 where the example's images cannot be read."""
        if example.unreadable:
            return Scored(0.0, None)
        score = self.score(self.read_answer(answer), example)
        return score if isinstance(score, Scored) else Scored(float(score))


def cut(answer: str, until: Sequence[str]) -> str:
    """The answer up to the first of some texts: `cut("B\\n\\nAs", ["\\n\\n"])` gives "B"."""
    return answer[: min((at for text in until if (at := answer.find(text)) >= 0), default=len(answer))]
