"""Asks a model every example of some tasks, in few batches, and scores its answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import hashlib
from pathlib import Path
import time

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.evaluation.predictions import Metrics, Prediction, append_predictions, read_predictions
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Task
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator

CHUNK = 1024
"""Prompts between two writes to the file of an unfinished evaluation: some sixteen batches."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, and every prediction behind them in the order of tasks and examples."""

    metrics: Metrics
    predictions: tuple[Prediction, ...]
    seconds: float


@dataclass(frozen=True)
class _Request:
    """One example of a task as the model is asked it. index: of the example among all of all tasks."""

    index: int
    task: Task
    example: Example
    prompt: Prompt

    @property
    def key(self) -> str:
        """Equal for the same example of the same task, asked in the same words and decoded alike."""
        parts = (
            self.task.name, self.example.id, self.prompt.token_ids, repr(self.task.decoding), repr(self.task.anyres)
        )  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def predict(self, text: str) -> Prediction:
        return Prediction(self.task.name, self.example, text, float(self.task.score(text, self.example)), self.prompt)


def evaluate(generator: Generator, tasks: Sequence[Task], unfinished: Path | None = None) -> Evaluation:
    """Asks and scores; `unfinished` as in `predict`.

    Raises: ValueError for a task without examples, and for two tasks, or two examples of one, of the same name.
    """
    started = time.monotonic()
    predictions = predict(generator, tasks, unfinished)
    of_task: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        of_task.setdefault(prediction.task, []).append(prediction)
    metrics: Metrics = {}
    for task in tasks:
        metrics |= task.summarize(of_task[task.name])
    return Evaluation(metrics, predictions, time.monotonic() - started)


def predict(generator: Generator, tasks: Sequence[Task], unfinished: Path | None = None) -> tuple[Prediction, ...]:
    """A prediction for every example, in the order of tasks and examples.

    Tasks that share decoding and a way to cut images are asked together.

    unfinished: predictions are added to this file after every CHUNK prompts, and those that it already holds are not
    asked again. Give every model, and every state of its training, another file.
    The predictions are those of an unbroken run, unless answers are sampled: what is drawn depends on how many prompts
    are asked in one call.
    """
    # What an earlier, broken evaluation wrote is not asked again.
    requests = list(_requests(generator, tasks))
    predictions: dict[int, Prediction] = {}
    if unfinished is not None:
        known = read_predictions(unfinished)
        predictions = {r.index: r.predict(known[r.key].text) for r in requests if r.key in known}

    # One call of the generator for each pair of settings: a call for each task would leave batches half empty.
    groups: dict[tuple[Decoding, AnyRes | None], list[_Request]] = {}
    for request in requests:
        if request.index not in predictions:
            groups.setdefault((request.task.decoding, request.task.anyres), []).append(request)
    for (decoding, anyres), group in groups.items():
        # In chunks only where they are kept, so that a kill loses one chunk at most.
        step = len(group) if unfinished is None else CHUNK
        for start in range(0, len(group), step):
            chunk = group[start : start + step]
            texts = generator.generate([request.prompt for request in chunk], decoding, anyres=anyres)
            new = {request.index: request.predict(text) for request, text in zip(chunk, texts, strict=True)}
            if unfinished is not None:
                append_predictions(unfinished, {request.key: new[request.index] for request in chunk})
            predictions |= new
    return tuple(predictions[request.index] for request in requests)


def _requests(generator: Generator, tasks: Sequence[Task]) -> Iterator[_Request]:
    seen: set[str | tuple[str, str]] = set()
    index = 0
    for task in tasks:
        if task.name in seen:
            raise ValueError(f"evaluation: two tasks are called {task.name}; rename one")
        seen.add(task.name)
        before = index
        for example in task.examples:
            if (task.name, example.id) in seen:
                raise ValueError(f"evaluation: two examples of {task.name} are called {example.id}; rename one")
            seen.add((task.name, example.id))
            yield _Request(index, task, example, task.prompt(example, generator.tokenizer))
            index += 1
        if index == before:
            raise ValueError(f"evaluation: {task.name} has no examples; ask for 1 item or more")
