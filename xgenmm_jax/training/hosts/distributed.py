"""Several processes as one run: how they find each other, agree, and end when one of them is gone."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
from dataclasses import dataclass
import os
import sys
import traceback

import jax
from jax.experimental import multihost_utils
import numpy as np

from xgenmm_jax.training.hosts.watchdog import EXIT_CODE, Watchdog, say_silent

COORDINATOR, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Variables of the environment."""


@dataclass(frozen=True)
class Distributed:
    """Which processes make up the run.

    coordinator: "host:port" of process 0. processes: how many; 1: this one alone, on a TPU host too. process: this
    one's number. Without any of them a TPU pod is found by itself, and elsewhere the process is alone.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None

    def __post_init__(self):
        are_set = (self.coordinator is not None, self.processes is not None, self.process is not None)
        if any(are_set) and not all(are_set) and self.processes != 1:
            raise ValueError(
                f"distributed: got coordinator {self.coordinator}, processes {self.processes}, process {self.process}; "
                "give all three, or none."
            )
        if all(are_set) and not 0 <= self.process < self.processes:
            raise ValueError(
                f"distributed.process: got {self.process} of {self.processes} processes; wanted 0 to "
                f"{self.processes - 1}."
            )


def from_environment(environment: Mapping[str, str]) -> Distributed:
    """What the three variables say. Raises ValueError where a number is none, or one is missing."""

    def number(name: str) -> int | None:
        text = environment.get(name)
        if text is not None and not text.isdecimal():
            raise ValueError(f"distributed: got '{text}' for {name}, wanted a number.")
        return None if text is None else int(text)

    return Distributed(environment.get(COORDINATOR), number(PROCESSES), number(PROCESS))


def start(config: Distributed) -> None:
    """Joins the run's processes; call it before anything touches a device. A process that is alone joins nothing."""
    if config.processes == 1:
        return
    if config.coordinator is not None:
        jax.distributed.initialize(
            config.coordinator, config.processes, config.process, cluster_detection_method="deactivate"
        )
    elif on_tpu_host():
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                f"distributed: JAX_PLATFORMS={jax.config.jax_platforms} asks for a TPU host, which this machine does "
                f"not look like ({error}); leave JAX_PLATFORMS away, or give --distributed.processes 1 for this host "
                "alone."
            ) from error


def on_tpu_host() -> bool:
    """Whether jax found TPU chips and libtpu when it was imported, and no JAX_PLATFORMS says otherwise."""
    return (jax.config.jax_platforms or "").split(",")[0] == "tpu"


def anyone(answer: bool) -> bool:
    """Whether any host says yes. With several hosts all must ask, and it waits for the steps under way."""
    if jax.process_count() == 1:
        return answer
    return bool(np.any(multihost_utils.process_allgather(np.asarray(answer))))


def on_first_host(work: Callable[[], object]) -> None:
    """Does something on host 0 while the others wait; an error there is one on all hosts, which end in order."""
    error = None
    if jax.process_index() == 0:
        try:
            work()
        except Exception as raised:
            error = raised
    if anyone(error is not None):
        raise error or ValueError("run folder: the run does not start on host 0, which says why.")


@contextlib.contextmanager
def ending_together(watchdog: Watchdog, last: Callable[[], object] = lambda: None) -> Iterator[None]:
    """An error on one of several hosts ends its process at once; alone, it passes through.

    Otherwise this host would wait for others that wait for it. A host that is gone makes the others' collectives
    fail: they say which one it was and exit with watchdog.EXIT_CODE. With an error of its own a host exits with 1.

    last: called before the process ends in this way.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        this_host = f"host {jax.process_index()} of {jax.process_count()}"
        print(f"xgenmm: {this_host}: {first_line(error)}", file=sys.stderr, flush=True)
        gone = watchdog.silent_hosts()
        if gone:
            print(
                f"xgenmm: {this_host} ends: {say_silent(gone)}. Start all hosts again, or as many as are left: the run "
                "goes on from its newest checkpoint.",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        with contextlib.suppress(Exception):
            last()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE if gone else 1)


def first_line(error: Exception) -> str:
    """What an error says, without the trace that some carry in their message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
