"""Suites: which tasks a run is measured by, as frozen data of its config."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import time
from typing import Any, Literal, NoReturn, Protocol, runtime_checkable

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.evaluation.predictions import Metrics
from xgenmm_jax.evaluation.runner import Evaluation, evaluate
from xgenmm_jax.evaluation.tasks.task import Task
from xgenmm_jax.generation.images.drawer import Drawer
from xgenmm_jax.generation.text.generator import Generator


@dataclass(frozen=True)
class InputFormat:
    """How a model takes its input, which tasks must know to ask it.

    chat: its chat template. prompt: "chat" for fine-tuned models, "few_shot" for base models. anyres: how its images
    are cut in training.
    """

    chat: ChatStyle
    prompt: Literal["chat", "few_shot"]
    anyres: AnyRes


@runtime_checkable
class Suite(Protocol):
    """A frozen dataclass derived from this class: the options of some tasks, as the run's config keeps them.

    Making one opens and draws nothing. name: in messages.
    """

    name: str

    def tasks(self, model: InputFormat) -> Sequence[Task]:
        """The tasks in the order of their metrics. Raises ValueError where files are missing or damaged."""
        ...

    def further_metrics(self, metrics: Metrics) -> Metrics:
        """Metrics over several tasks, computed from all tasks' own; by default none."""
        return {}


class DrawingSuite(Suite):
    """What a model that draws is measured by; it has no questions. `xgenmm evaluate RUN` asks it, training does not."""

    def tasks(self, model: InputFormat) -> Sequence[Task]:
        return ()

    @abc.abstractmethod
    def metrics_of(self, drawer: Drawer) -> tuple[Metrics, str]:
        """Metrics of what it draws, and a page that shows it, as HTML."""


@dataclass(frozen=True)
class UnloadedSuite(Suite):
    """A suite of a run that was read without its experiment: its class stands in a file of the user's.

    settings: as config.json keeps it. The file is neither looked for nor executed.
    """

    settings: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        return str(self.settings.get("class"))

    def tasks(self, model: InputFormat) -> NoReturn:
        """Raises ValueError: the tasks are what the file makes of them."""
        raise ValueError(
            f"evaluate: the suite '{self.name}' needs a file of yours, which is not executed to read a run; it is "
            "asked while the experiment that names it trains (evaluate_every)."
        )


def make_tasks(suites: Sequence[Suite], model: InputFormat) -> list[Task]:
    """The tasks of all suites. Raises ValueError as they do, and for two tasks of one name."""
    tasks, suite_of = [], {}
    for suite in suites:
        for task in suite.tasks(model):
            if task.name in suite_of:
                raise ValueError(
                    f"evaluate: the suites '{suite_of[task.name]}' and '{suite.name}' both have a task '{task.name}'; "
                    "leave it out of one."
                )
            suite_of[task.name] = suite.name
            tasks.append(task)
    return tasks


def run_tasks(generator: Generator, tasks: Sequence[Task], suites: Sequence[Suite]) -> Evaluation:
    """Asks and scores what `make_tasks` gave; with the suites' further metrics."""
    started = time.monotonic()
    evaluation = evaluate(generator, tasks)
    metrics = dict(evaluation.metrics)
    for suite in suites:
        metrics |= suite.further_metrics(evaluation.metrics)
    return Evaluation(metrics, evaluation.predictions, time.monotonic() - started)
