"""Evaluation during training: the suites of a run, asked of the parameters as they are after some steps.

And what the loop does around an evaluation of any kind.
"""

from collections.abc import Callable
import contextlib
import time
from typing import Protocol, runtime_checkable

from jax.sharding import Mesh

from xgenmm_jax import hub
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.evaluation.tasks.suite import InputFormat, make_tasks, run_tasks
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.hosts.signals import Signals
from xgenmm_jax.training.hosts.watchdog import Watchdog
from xgenmm_jax.training.metrics import EVALUATION, MetricsLog, ProgressBar, Row
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.progress import StepTracker
from xgenmm_jax.training.sharding import sharding_context
from xgenmm_jax.training.step import TrainState


class StoppedError(Exception):
    """The run is to end: the evaluation's remaining batches are not asked."""


@runtime_checkable
class Evaluator(Protocol):
    """What is asked of the state between steps. `run` calls `check` before each batch; what that raises ends it."""

    def is_due(self, step: int) -> bool: ...

    def run(self, step: int, params: Params, reference: Params | None, check: Callable[[], None]) -> Row: ...


def evaluate(
    evaluator: Evaluator,
    step: int,
    state: TrainState,
    reference: Params | None,
    tracker: StepTracker,
    log: MetricsLog,
    bar: ProgressBar,
    signals: Signals,
    watchdog: Watchdog,
) -> None:
    """Asks the state after a step and logs the metrics; a signal ends it. Call it when no step is in flight.

    With several hosts all call it, and get the same answer about signals.
    """
    if not bool(state.healthy):
        return  # what follows says so, and saves the state before

    def check() -> None:
        watchdog.at(step, "evaluating")  # each batch anew
        if signals.received(step) is not None:
            raise StoppedError

    started = time.monotonic()
    with contextlib.suppress(StoppedError):
        check()
        row = evaluator.run(step, state.params, reference, check)
        log.write(row)
        bar.show_evaluation(row)
    tracker.leave_out(time.monotonic() - started)


class PeriodicEvaluation:
    """The tasks of a config's suites, made here, and when they are asked: by all hosts, which each read all examples.

    Raises ValueError where a suite's files are missing, two tasks have one name, or the run trains no vision-language
    model.
    """

    def __init__(self, config: TrainConfig, mesh: Mesh):
        if not isinstance(config.model, VLMConfig) or not isinstance(config.data, DataConfig):
            raise ValueError(
                f"evaluate_every: got {config.evaluate_every} for a {type(config.model).__name__}; wanted a "
                "vision-language model on rows of records. Give 0."
            )
        data, asking = config.data, config.data.asking
        self._every, self._suites = config.evaluate_every, config.evaluate
        self._model, self._anyres = config.model, asking.anyres
        self._tokenizer = Tokenizer.load(hub.local_folder(data.tokenizer, "data.tokenizer", "tokenizer", is_kept=True))
        self._sharding = sharding_context(mesh)
        self._tasks = make_tasks(self._suites, InputFormat(asking.chat, config.prompt, asking.anyres))

    def is_due(self, step: int) -> bool:
        return step % self._every == 0

    def run(self, step: int, params: Params, reference: Params | None, check: Callable[[], None]) -> Row:
        """A row of metrics after a step, with the seconds that it took.

        params: read where they lie, not copied. check: called before each batch of prompts.
        """
        started = time.monotonic()
        # One for each evaluation, so that vision tokens and caches leave the devices with it; compiled programs belong
        # to the process and are found again.
        generator = Generator(
            self._model, params, self._tokenizer, self._anyres, sharding_context=self._sharding, before_batch=check
        )
        evaluation = run_tasks(generator, self._tasks, self._suites)
        figures = {f"{EVALUATION}/{name}": value for name, value in evaluation.metrics.items()}
        return {"step": step, **figures, f"{EVALUATION}/seconds": time.monotonic() - started}
