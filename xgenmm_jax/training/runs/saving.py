"""When a run saves, and what it does before an error ends it."""

from collections.abc import Iterator
import contextlib
import time

import jax

from xgenmm_jax.paths import Path
from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.hosts.distributed import anyone
from xgenmm_jax.training.hosts.watchdog import Watchdog
from xgenmm_jax.training.progress import StepTracker
from xgenmm_jax.training.runs.checkpoints import Checkpoints
from xgenmm_jax.training.step import TrainState


class NonFiniteLossError(ValueError):
    """The run met a loss or gradient that is not finite and stopped."""


def save(
    state: TrainState, tracker: StepTracker, checkpoints: Checkpoints, folder: Path, is_urgent: bool = False
) -> None:
    """Saves the state after the steps so far; call it when none is in flight.

    Raises NonFiniteLossError where one of them was not healthy; saved, and on the disk, is then the state before it.
    """
    if not bool(state.healthy):
        checkpoints.save(state, tracker.before(int(state.step) + 1))
        checkpoints.wait()
        raise NonFiniteLossError(tracker.unhealthy_message(int(state.step) + 1, folder))
    checkpoints.save(state, tracker.progress, is_urgent=is_urgent)


@contextlib.contextmanager
def saving_first(
    step: int, state: TrainState, tracker: StepTracker, checkpoints: Checkpoints, watchdog: Watchdog, folder: Path
) -> Iterator[None]:
    """Around what gives a step's rows: an error passes through when the steps before it are saved, and on the disk.

    Saving needs all hosts, and an error may be one host's alone: with several it passes through at once.
    """
    try:
        yield
    except Exception:
        if jax.process_count() == 1:
            tracker.drain(0)
            watchdog.at(step, "saving")
            save(state, tracker, checkpoints, folder)
            checkpoints.wait()
        raise


class SaveSchedule:
    """When to save by steps and seconds; the loop itself saves on signals and at the end.

    Not orbax's `save_decision_policy`: it counts seconds from the newest checkpoint, so a resumed run would save at its
    first step, asks all hosts at every step, sees neither SIGINT nor, on one host, SIGTERM, and decides on a state
    whose loss may not be finite.
    """

    def __init__(self, policy: CheckpointConfig, log_every: int):
        self._policy, self._log_every = policy, log_every
        self._saved_at = time.monotonic()

    def is_due(self, step: int) -> bool:
        """All hosts answer alike: by the clock of any, asked at logged steps, for asking waits for the devices."""
        policy = self._policy
        if policy.every_steps and step % policy.every_steps == 0:
            return True
        if not policy.every_seconds or (jax.process_count() > 1 and step % self._log_every):
            return False
        return anyone(time.monotonic() - self._saved_at > policy.every_seconds)

    def saved(self) -> None:
        self._saved_at = time.monotonic()
