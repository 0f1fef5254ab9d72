"""Worker processes of the data: spawned, deaf to Ctrl-C, and gone with the process that started them."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
import ctypes
import multiprocessing
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def pool(count: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> ProcessPoolExecutor:
    """`count` processes that begin with `start(*arguments)`."""
    # Not fork: threads, file systems and XLA are not made for it.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, context, _begin, (os.getpid(), start, arguments))


def _begin(parent: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the main process's to answer
    _end_with_parent(parent)
    start(*arguments)


def _end_with_parent(parent: int) -> None:
    """Asks Linux to kill this worker with its parent; without it, a killed run leaves its workers behind."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
