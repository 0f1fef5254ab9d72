"""When a run saves, and what it does before an error ends it."""

from collections.abc import Iterator
import contextlib
from pathlib import Path
import time
from typing import Protocol, runtime_checkable

import jax

from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.hosts.distributed import anyone
from xgenmm_jax.training.hosts.watchdog import Watchdog
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress
from xgenmm_jax.training.step import TrainState


class NonFiniteLossError(ValueError):
    """The run met a loss or gradient that is not finite and stopped."""


@runtime_checkable
class Watched(Protocol):
    """What the loop knows of the steps that it dispatched."""

    progress: Progress

    def land(self, at_most: int) -> None:
        """Waits until at most so many steps are under way."""
        ...

    def before(self, step: int) -> Progress:
        """What the run had done before a step that is not known to be healthy."""
        ...

    def message(self, step: int, folder: Path) -> str:
        """What to tell of an unhealthy step."""
        ...


def save(state: TrainState, watch: Watched, checkpoints: Checkpoints, folder: Path, is_urgent: bool = False) -> None:
    """Saves the steps that are done; call it when none is under way.

    Raises NonFiniteLossError where one of them was not healthy; saved, and on the disk, is then the state before it.
    """
    if not bool(state.healthy):
        checkpoints.save(state, watch.before(int(state.step) + 1))
        checkpoints.wait()
        raise NonFiniteLossError(watch.message(int(state.step) + 1, folder))
    checkpoints.save(state, watch.progress, is_urgent=is_urgent)


@contextlib.contextmanager
def saving_first(
    step: int, state: TrainState, watch: Watched, checkpoints: Checkpoints, watchdog: Watchdog, folder: Path
) -> Iterator[None]:
    """Around what gives a step's rows: an error passes through when the steps before it are saved, and on the disk.

    Saving needs all hosts, and an error may be one host's alone: with several it passes through at once.
    """
    try:
        yield
    except Exception:
        if jax.process_count() == 1:
            watch.land(0)
            watchdog.at(step, "saving")
            save(state, watch, checkpoints, folder)
            checkpoints.wait()
        raise


class Saves:
    """When to save by schedule."""

    def __init__(self, policy: CheckpointConfig, log_every: int):
        self._policy, self._log_every = policy, log_every
        self._saved_at = time.monotonic()

    def are_due(self, step: int) -> bool:
        """All hosts answer alike: by the clock of any, asked at logged steps, for asking waits for the devices."""
        policy = self._policy
        if policy.every_steps and step % policy.every_steps == 0:
            return True
        if not policy.every_seconds or (jax.process_count() > 1 and step % self._log_every):
            return False
        return anyone(time.monotonic() - self._saved_at > policy.every_seconds)

    def saved(self) -> None:
        self._saved_at = time.monotonic()
