"""Worker processes of the data: spawned, deaf to Ctrl-C, and gone with the process that started them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
import ctypes
import functools
import multiprocessing
from multiprocessing.reduction import ForkingPickler
import os
import signal
import sys
from typing import Any, Generic, TypeVar

from xgenmm_jax import user_files
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.user_files import UserFile

T, R, W = TypeVar("T"), TypeVar("R"), TypeVar("W")
_PR_SET_PDEATHSIG = 1


def pool(count: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> ProcessPoolExecutor:
    """`count` processes that begin with `start(*arguments)`; they are given work by `submit`."""
    # Not fork: threads, file systems and XLA are not made for it.
    context = multiprocessing.get_context("spawn")
    # As bytes: a worker can make classes of an experiment's file only when it has loaded that.
    pickled = bytes(ForkingPickler.dumps((start, arguments)))
    return ProcessPoolExecutor(count, context, _begin, (os.getpid(), user_files.loaded_for(arguments), pickled))


def submit(workers: ProcessPoolExecutor, work: Callable[[T], R], task: T) -> "Future[R]":
    """`work(task)` in one of a pool's processes.

    Its result raises what `work` raises, and what the process could not begin with: a shard that is gone, a file of
    the experiment. Raises BrokenProcessPool, here or there, where a process ended by itself.
    """
    return workers.submit(_run, work, task)


_FAILED: list[Exception] = []
"""Why this process could not begin. A pool would tell of it only that a process ended."""


def _begin(parent: int, files: tuple[UserFile, ...], pickled: bytes) -> None:
    """files: what the arguments need that no import finds. pickled: by the process that starts this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the main process's to answer
    _end_with_parent(parent)
    try:
        user_files.load_again(files)
        start, arguments = ForkingPickler.loads(pickled)
        start(*arguments)
    except Exception as error:
        _FAILED.append(error)


def _run(work: Callable[[T], R], task: T) -> R:
    if _FAILED:
        raise _FAILED[0]
    return work(task)


def _end_with_parent(parent: int) -> None:
    """Asks Linux to kill this worker with its parent; without it, a killed run leaves its workers behind."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


class Workers(Generic[W]):
    """`count` processes that each have an object `kind(*arguments)`, or one in this process; closed by `with`."""

    def __init__(self, count: int, kind: Callable[..., W], arguments: tuple[Any, ...]):
        if count < 1:
            raise ValueError(f"data: {count} processes; wanted 1 or more.")
        self._pool = pool(count, _make, (kind, arguments)) if count > 1 else None
        self._worker = kind(*arguments) if count == 1 else None

    def map(self, work: Callable[[W, T], R], tasks: Iterable[T]) -> Iterator[R]:
        """`work(object, task)` of each task, in their order.

        Raises what making the object or working raises, SourceError where a process ends by itself.
        """
        if self._pool is None:
            yield from (work(self._worker, task) for task in tasks)
            return
        try:
            yield from self._pool.map(functools.partial(_run, _work), ((work, task) for task in tasks))
        except BrokenProcessPool as error:
            raise SourceError(
                "data: a worker process ended (killed for memory?) or could not start; see its words above, or take "
                "fewer --processes. What is written stays: the same command goes on."
            ) from error

    def __enter__(self) -> "Workers[W]":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


_OBJECT: list[Any] = []
"""That of a worker process."""


def _make(kind: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _OBJECT.append(kind(*arguments))


def _work(job: tuple[Callable[[Any, T], R], T]) -> R:
    work, task = job
    return work(_OBJECT[0], task)
