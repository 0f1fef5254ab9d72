"""Commands that several hosts run together, each the same one: `xgenmm evaluate` and `xgenmm generate` on a slice.

Every host reads all prompts and images, the devices of all share the work, and the first host alone writes and prints.
"""

from collections.abc import Iterator, Sequence
import contextlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xgenmm_jax.training.hosts.distributed import Distributed


def take_hosts(argv: Sequence[str]) -> tuple[list[str], "Distributed | None"]:
    """The arguments without `--distributed.*`, and what they say, as `xgenmm train` has it; None where help is asked.

    Raises ValueError where they say too little, or a number is none.
    """
    if {"-h", "--help"} & set(argv):  # which does not wait for JAX
        return list(argv), None
    from xgenmm_jax.cli.train import take_hosts

    return take_hosts(list(argv))


@contextlib.contextmanager
def joined(hosts: "Distributed | None") -> Iterator[bool]:
    """Joins the other hosts; gives whether this one writes and prints. At the end all wait for each other.

    An error on one of several hosts ends its process at once, with the error said, since the others would wait for it;
    their next exchange fails, and they end too.
    """
    import jax

    from xgenmm_jax.training.hosts import distributed

    distributed.start(hosts or distributed.Distributed())
    if jax.process_count() == 1:
        yield True
        return
    try:
        yield jax.process_index() == 0
        distributed.anyone(False)
    except Exception as error:
        host = f"host {jax.process_index()} of {jax.process_count()}"
        print(f"xgenmm: {host}: {distributed.first_line(error)}", file=sys.stderr, flush=True)
        if not isinstance(error, ValueError):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


@contextlib.contextmanager
def held_by_first(lock: Any) -> Iterator[None]:
    """A `RunLock` that the first host holds for all; an error there ends the others in order."""
    from xgenmm_jax.training.hosts.distributed import on_first_host

    on_first_host(lock.acquire)
    try:
        yield
    finally:
        lock.release()
