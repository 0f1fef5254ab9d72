"""SIGTERM and SIGINT as a question the loop asks between steps."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Signals:
    """Remembers the first SIGTERM or SIGINT while it is entered; a second one acts as usual."""

    def __init__(self):
        self._number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        # Python lets only the main thread set handlers; in notebooks' and tests' threads there is nothing to catch.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def received(self, step: int) -> int | None:
        """The signal to stop for after this step. All hosts of a run answer alike."""
        if jax.process_count() > 1 and jax.distributed.is_initialized():
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None
        return self._number
