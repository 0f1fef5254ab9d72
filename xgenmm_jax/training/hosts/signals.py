"""SIGTERM, SIGINT, SIGHUP and SIGUSR1 as questions the loop asks between steps."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Signals:
    """Remembers the first SIGTERM, SIGINT or SIGHUP while it is entered; a second one of the first two acts as usual.

    SIGHUP comes where the terminal is closed or ssh is gone, often twice. What was ignored when the process began, as
    under nohup, stays ignored.

    With several hosts SIGTERM is jax's own to catch: a notice to one host reaches all of them, and they agree on a
    step that none has passed. Ctrl-C and SIGHUP on one are passed on to it as SIGTERM.
    """

    def __init__(self):
        self._number: int | None = None
        self._profile = False
        self._previous: dict[int, object] = {}
        self._several = jax.process_count() > 1 and jax.distributed.is_initialized()

    def __enter__(self) -> "Signals":
        # Python lets only the main thread set handlers; in notebooks' and tests' threads there is nothing to catch.
        if threading.current_thread() is threading.main_thread():
            handlers = {number: self._catch for number in (signal.SIGINT, signal.SIGHUP) if not is_ignored(number)}
            handlers[signal.SIGUSR1] = self._catch_profile
            if not self._several:
                handlers[signal.SIGTERM] = self._catch
            self._previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(*self._previous)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:  # a SIGHUP after the first signal: what it asks for is being done
            return
        self._number = number
        self._restore(signal.SIGINT, signal.SIGTERM)
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    def _catch_profile(self, number: int, frame: FrameType | None) -> None:
        self._profile = True

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            if number in self._previous:
                signal.signal(number, self._previous.pop(number))

    def profile(self) -> bool:
        """Whether SIGUSR1 came since this was last asked."""
        requested, self._profile = self._profile, False
        return requested

    def received(self, step: int) -> int | None:
        """The signal to stop for after this step. All hosts of a run answer alike."""
        if self._several:
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None
        return self._number


def is_ignored(number: int) -> bool:
    """Whether a signal is ignored now: SIGHUP under nohup, SIGINT of what a script runs in the background."""
    return signal.getsignal(number) is signal.SIG_IGN
