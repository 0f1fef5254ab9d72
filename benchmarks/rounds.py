"""Sides of a comparison as processes of their own, timed in turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import multiprocessing
import os
import statistics
import traceback
from typing import Any

from xgenmm_jax.cli.main import keep_memory

Make = Callable[[], Any]
"""Gives a side; called in the side's own process, so it must pickle (a functools.partial of a module's function)."""


class SideError(RuntimeError):
    """A side failed; the message is its last line of the traceback."""


def short_of_memory(reason: str) -> bool:
    """Whether a SideError's message tells that memory ran out: JAX's, torch's, CUDA's words, or the kernel's signal."""
    words = ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory", "OUT_OF_MEMORY", "ALLOC_FAILED", "code -9")
    return any(word in reason for word in words)


class Side:
    """An object in another process. Memory and threads of two sides never meet, and an idle side sleeps."""

    def __init__(self, make: Make):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def call(self, method: str, *arguments: Any) -> Any:
        """What the side's method gives. Raises SideError where it raises or its process ends."""
        try:
            self._pipe.send((method, arguments))
        except OSError:  # it was killed while it slept
            raise self._ended() from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            error, result = self._pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if error:
            self.close()
            raise SideError(error)
        return result

    def _ended(self) -> SideError:
        self._process.join()
        return SideError(f"its process ended with code {self._process.exitcode}; -9 is the kernel's, for memory")

    def close(self) -> None:
        """Ends the process and gives its memory back."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Any, make: Make) -> None:
    # As the `xgenmm` command does; for the peer as well.
    keep_memory()
    try:
        side = make()
        pipe.send((None, None))
        while True:
            method, arguments = pipe.recv()
            pipe.send((None, getattr(side, method)(*arguments)))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as error:
        if os.environ.get("BENCHMARK_TRACEBACK"):
            traceback.print_exc()
        # Two lines: torch.compile's errors begin with the compiler's name and tell what it raised in the next.
        pipe.send((f"{type(error).__name__}: {' '.join(str(error).strip().splitlines()[:2])}", None))


@dataclass(frozen=True)
class Timed:
    """A side's seconds for one step, of each round, and what its last run of steps gave."""

    seconds: tuple[float, ...]
    info: dict[str, Any]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """Of one side's seconds to another's, round by round: above 1, the other is faster."""

    median: float
    least: float
    most: float


def ratio(slower: Timed, faster: Timed) -> Ratio:
    """Rounds are paired, so that what slows the machine for a while slows both."""
    ratios = [a / b for a, b in zip(slower.seconds, faster.seconds, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def alternate(
    makes: Mapping[str, Make],
    rounds: int,
    steps: int,
    warmup: int,
    apart: bool,
    tell: Callable[[str], None],
    smaller: Mapping[str, Make] | None = None,
) -> tuple[dict[str, Timed], dict[str, str]]:
    """Times of the sides, and the reasons of those that failed.

    Each round every side takes `steps` steps, in turns and in reverse order every other round. A side has
    `run(steps) -> seconds a step` and `info() -> dict`. apart: only one side is in memory at a time, so each round
    makes and warms it anew. smaller: what takes the place of a side that runs out of memory in its first warm-up, in a
    new process and for all rounds.
    """
    makes, smaller = dict(makes), dict(smaller or {})
    failed: dict[str, str] = {}
    seconds: dict[str, list[float]] = {name: [] for name in makes}
    infos: dict[str, dict[str, Any]] = {}
    sides: dict[str, Side] = {}

    def warmed(name: str) -> Side:
        if name not in sides:
            tell(f"{name}: starting, {warmup} steps of warm-up")
            try:
                side = Side(makes[name])
                side.call("run", warmup)
            except SideError as error:
                # A side that has been timed stays what it is: its rounds must be of one kind.
                if seconds[name] or name not in smaller or not short_of_memory(str(error)):
                    raise
                tell(f"{name}: {error}; now the one that takes less memory")
                makes[name] = smaller.pop(name)
                return warmed(name)
            sides[name] = side
        return sides[name]

    for number in range(rounds):
        order: Sequence[str] = list(makes) if number % 2 == 0 else list(reversed(makes))
        if number == 0 and not apart:
            for name in order:
                _try(name, failed, warmed)
        for name in order:
            if name in failed:
                continue
            spent = _try(name, failed, lambda name: warmed(name).call("run", steps))
            if spent is None:
                continue
            seconds[name].append(spent)
            infos[name] = sides[name].call("info")
            tell(f"round {number + 1} of {rounds}: {name} {spent:.4g} s")
            if apart:
                sides.pop(name).close()
    for side in sides.values():
        side.close()
    return {name: Timed(tuple(seconds[name]), infos[name]) for name in makes if name not in failed}, failed


def _try(name: str, failed: dict[str, str], function: Callable[[str], Any]) -> Any:
    try:
        return function(name)
    except SideError as error:
        failed[name] = str(error)
        return None
