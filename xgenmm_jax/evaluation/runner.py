"""Asks a model every example of some tasks, in few batches, and scores its answers.

`predict` keeps the answers in memory. `predict_into` adds them to a file as they come, so that the same call goes on
after a kill and leaves the same file, byte for byte.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
import time

import jax
from jax.experimental import multihost_utils
import numpy as np
import PIL.Image

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Crops, LazyImage
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.evaluation import prediction_files
from xgenmm_jax.evaluation.prediction_files import Head
from xgenmm_jax.evaluation.predictions import Metrics, Prediction
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Task, cut
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.paths import Path

CHUNK = 1024
"""Prompts between two writes to a file of predictions, some sixteen batches; a kill costs a chunk at most."""

Advance = Callable[[int], None]
"""Is told how many more examples are done."""


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
    prompt: Prompt | None
    """None where an image of the example cannot be read."""

    def predict(self, text: str, unreadable: str = "") -> Prediction:
        example = replace(self.example, unreadable=unreadable) if unreadable else self.example
        scored = self.task.scored(text, example)
        return Prediction(self.task.name, example, text, scored.score, self.prompt, scored.extracted)


def evaluate(generator: Generator, tasks: Sequence[Task]) -> Evaluation:
    """Asks and scores.

    Raises: ValueError for a task without examples, and for two tasks, or two examples of one, of the same name.
    """
    started = time.monotonic()
    predictions = predict(generator, tasks)
    of_task: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        of_task.setdefault(prediction.task, []).append(prediction)
    metrics: Metrics = {}
    for task in tasks:
        metrics |= task.summarize(of_task[task.name])
    return Evaluation(metrics, predictions, time.monotonic() - started)


def predict(generator: Generator, tasks: Sequence[Task]) -> tuple[Prediction, ...]:
    """A prediction for every example, in the order of tasks and examples.

    Tasks that share decoding, its stops and a way to cut images are asked together: a call for each would leave batches
    half empty. An example whose images cannot be read is not asked; its score is 0.
    """
    requests = list(_requests(generator, tasks))
    groups: dict[tuple[Decoding, tuple[str, ...], AnyRes | None], list[_Request]] = {}
    for request in requests:
        task = request.task
        groups.setdefault((task.decoding, task.stops, task.anyres), []).append(request)
    predictions: dict[int, Prediction] = {}
    for group in groups.values():
        predictions |= _ask(generator, group)
    return tuple(predictions[request.index] for request in requests)


def predict_into(
    generator: Generator, task: Task, path: Path, head: Head, advance: Advance = lambda _: None
) -> tuple[Prediction, ...] | None:
    """As `predict`, of one task; predictions that the file holds are not asked again.

    Several hosts call this alike; the first one alone reads and writes the file, the others get None.

    The file has the examples in chunks whose questions share images, each chunk written when it is answered. A chunk of
    which a kill left a part is asked again as a whole, at the same shapes, so the file of a broken evaluation that is
    run to its end is that of an unbroken one. Sampled answers are drawn by their place in a chunk, and equal too.

    head: what the file is of. Raises: ValueError where the file is of something else.
    """
    requests = list(_requests(generator, [task]))
    chunks = list(_chunks(requests))
    is_first, done, known = jax.process_index() == 0, 0, {}
    if is_first:
        done = prediction_files.begin_or_continue(path, head, [len(chunk) for chunk in chunks])
        known = {p.example.id: p for p in prediction_files.read(path).predictions}
    if jax.process_count() > 1:
        done = int(multihost_utils.broadcast_one_to_all(np.int32(done)))
    predictions: dict[int, Prediction] = {}
    for number, chunk in enumerate(chunks):
        if number < done and not is_first:
            continue
        if number < done:
            read = {r.index: known[r.example.id] for r in chunk}
            new = {r.index: r.predict(read[r.index].text, read[r.index].example.unreadable) for r in chunk}
        else:
            # Images of the chunk before would be encoded in other batches after a kill.
            generator.forget_images()
            new = _ask(generator, chunk)
            if is_first:
                prediction_files.append(path, [new[request.index] for request in chunk])
        predictions |= new
        advance(len(chunk))
    return tuple(predictions[request.index] for request in requests) if is_first else None


def _ask(generator: Generator, requests: Sequence[_Request]) -> dict[int, Prediction]:
    """Predictions by the request's index. All share decoding, its stops and a way to cut images.

    The batches are those in which all images can be read, so that one which cannot changes no other answer.
    """
    predictions = {r.index: r.predict("", r.example.unreadable) for r in requests if r.prompt is None}
    shown: dict[LazyImage | Crops, _OrBlack] = {}

    def or_black(image: LazyImage | Crops) -> LazyImage | Crops:
        return shown.setdefault(image, _OrBlack(image)).image if isinstance(image, LazyImage) else image

    asked = [(request, request.prompt) for request in requests if request.prompt is not None]
    prompts = [Prompt(prompt.token_ids, tuple(map(or_black, prompt.images))) for _, prompt in asked]
    task = requests[0].task
    stops = task.stop_ids(generator.tokenizer) if task.stops else ()
    texts = generator.generate(prompts, task.decoding, anyres=task.anyres, more_stops=stops) if prompts else []
    for (request, prompt), text in zip(asked, texts, strict=True):
        damage = next((shown[image].reason for image in prompt.images if image in shown and shown[image].reason), "")
        predictions[request.index] = request.predict("" if damage else cut(text, request.task.until), damage)
    return predictions


class _OrBlack:
    """An image that is black where its pixels cannot be read. reason: why, once they were asked for."""

    def __init__(self, image: LazyImage):
        self._image = image
        self.reason = ""
        self.image = LazyImage(image.size_px, self._load)

    def _load(self) -> PIL.Image.Image:
        try:
            return self._image.load()
        except (ValueError, OSError) as error:
            self.reason = str(error) or type(error).__name__
            return PIL.Image.new("RGB", self._image.size_px)


def _chunks(requests: Sequence[_Request]) -> Iterator[list[_Request]]:
    """Questions about one image together, in the order in which images come first; at most CHUNK prompts."""
    by_image: dict[int, list[_Request]] = {}
    for request in requests:
        images = request.prompt.images if request.prompt is not None else ()
        by_image.setdefault(id(images[0]) if images else -1, []).append(request)
    chunk: list[_Request] = []
    for group in by_image.values():
        # Questions without an image stand together too, and may be more than a chunk.
        for start in range(0, len(group), CHUNK):
            part = group[start : start + CHUNK]
            if chunk and len(chunk) + len(part) > CHUNK:
                yield chunk
                chunk = []
            chunk.extend(part)
    if chunk:
        yield chunk


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
            prompt = None if example.unreadable else task.prompt(example, generator.tokenizer)
            yield _Request(index, task, example, prompt)
            index += 1
        if index == before:
            raise ValueError(f"evaluation: {task.name} has no examples; ask for 1 item or more")
