"""What `xgenmm demo` does with a stage: train it, evaluate it, collect what the page shows."""

from collections.abc import Callable
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from xgenmm_jax import api
from xgenmm_jax.evaluation import predictions
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.models import blip3
from xgenmm_jax.nano import tasks
from xgenmm_jax.nano.report import gallery
from xgenmm_jax.training import loop
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.runs.run_lock import EVALUATION_LOCK_FILE, RunLock

_COMPILATION = "/jax/core/compile/backend_compile_duration"


def train(config: TrainConfig, folder: Path) -> int | None:
    """Trains a stage to its end; gives the signal that stopped it before."""
    return loop.train(config, folder).signal


def evaluate(folder: Path) -> dict[str, Any]:
    """The whole suite on a run's newest parameters, and what the page shows of it.

    Writes evaluation.json, answers.jsonl and examples/ into the folder, as `xgenmm evaluate` does.
    """
    with RunLock(folder, EVALUATION_LOCK_FILE):
        run = api.load(folder)
        style = "chat" if run.is_tuned() else "few_shot"
        generator = run.generator(Limits(few_shapes=True))
        config = tasks.DrawnWorld(style)
        evaluation = tasks.run_suite(generator, config, run.processor.chat)
        collected = gallery.collect(generator, run.params, evaluation, style, run.processor.chat)
        collected["baselines"] = tasks.suite_baselines(config, generator.anyres)
        predictions.write_predictions(evaluation.predictions, folder)
        predictions.write_metrics(
            evaluation.metrics, len(evaluation.predictions), folder / "evaluation.json"
        )
    return collected


def parameter_count(config: TrainConfig) -> int:
    """Of the whole model, frozen parts included."""
    shapes = jax.eval_shape(functools.partial(blip3.initialize, config.model), jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def on_compilation(spent: Callable[[float], None]) -> None:
    """Calls `spent` with the seconds that each of XLA's compilations takes, or that finding it on the disk takes."""

    def listen(event: str, seconds: float, **_: Any) -> None:  # JAX passes attributes by name
        if event == _COMPILATION:
            spent(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
