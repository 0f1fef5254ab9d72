"""Traces of a few steps for TensorBoard's profile page and Perfetto: from a step on, or when a signal asks."""

from collections.abc import Callable
import contextlib
from dataclasses import dataclass
import logging

import jax

from xgenmm_jax.appending import FolderCopy
from xgenmm_jax.paths import Path
from xgenmm_jax.training.runs.side_files import make_room

LOG = logging.getLogger(__name__)

FOLDER = "profile"


@dataclass(frozen=True)
class ProfileConfig:
    """What is traced into the run folder.

    start_step: the first step; 0: none. steps: how many, here and after each SIGUSR1 (`kill -USR1 PID`, which asks the
    host of that process alone). hosts: numbers of those that trace from start_step on.
    """

    start_step: int = 0
    steps: int = 3
    hosts: tuple[int, ...] = (0,)

    def __post_init__(self):
        if not self.hosts or min(self.hosts) < 0:
            raise ValueError(f"profile.hosts: got {self.hosts}; wanted numbers of hosts, one or more, from 0.")
        if self.start_step < 0 or self.steps < 1:
            raise ValueError(
                f"profile: got start_step {self.start_step}, steps {self.steps}; wanted 0 or more, and 1 or more."
            )


class Profiler:
    """Starts and stops traces between steps. Leaving it ends one that is under way.

    requested: asked before each step whether somebody wants one (`Signals.profile`). host: this one; JAX's by default.
    """

    def __init__(self, config: ProfileConfig, run: Path, requested: Callable[[], bool], host: int | None = None):
        self._config, self._run, self._requested = config, run, requested
        self._is_asked = (jax.process_index() if host is None else host) in config.hosts
        self._last_step: int | None = None
        self._folder: FolderCopy | None = None

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._last_step is not None:
            self._stop()

    def before(self, step: int) -> None:
        """Starts a trace if it is time. Steps that are still under way are seen too."""
        is_time = step == self._config.start_step and self._is_asked
        if self._last_step is None and (is_time or self._requested()):
            self._last_step = step + self._config.steps - 1
            folder = self._run / FOLDER / f"step_{step}"
            make_room(folder.parent, for_folder=True)
            self._folder = FolderCopy(folder)
            try:
                jax.profiler.start_trace(str(self._folder.local))
            except RuntimeError as error:  # another profiler of the process is at work
                LOG.warning("profile: steps %d to %d are not traced (%s)", step, self._last_step, error)
                self._last_step = None
                return
            LOG.warning("profile: steps %d to %d go to '%s'", step, self._last_step, folder)

    def after(self, step: int, finish: Callable[[], None]) -> None:
        """Ends the trace behind its last step. finish: waits for what was dispatched."""
        if step == self._last_step:
            finish()
            self._stop()

    def _stop(self) -> None:
        self._last_step = None
        with contextlib.suppress(RuntimeError):  # another profiler of the process has ended it
            jax.profiler.stop_trace()
        self._folder.changed()
        self._folder.close()
