"""One sentence, with what to do, where a device's memory does not hold what is asked of it."""

from collections.abc import Iterator
import contextlib
from contextlib import AbstractContextManager
import re

import jax

from xgenmm_jax.training.config import TrainConfig

ON_CPU = "JAX_PLATFORMS=cpu computes in the machine's own memory"
"""A remedy where no option helps."""


class DeviceMemoryError(ValueError):
    """A device ran out of memory."""


@contextlib.contextmanager
def explained(work: str, remedies: str) -> Iterator[None]:
    """An out-of-memory error of a device becomes a DeviceMemoryError that names the remedies; others pass through.

    work: what the device has too little for.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DeviceMemoryError(f"memory: a device has too little for {work} ({reason}); {remedies}.") from error


def explained_for(config: TrainConfig) -> AbstractContextManager[None]:
    """`explained` with what may change when the run is continued."""
    rows = getattr(config.data, "batch_rows", None)
    fewer = "" if rows is None else f", fewer rows (--data.batch-rows, now {rows}, with another --workdir)"
    remedies = (
        f"continue it with more micro-batches (--accumulation, now {config.accumulation}), rematerialization "
        f"(--model.decoder.remat full) or more chips{fewer}"
    )
    return explained("this run", remedies)


def _is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """RESOURCE_EXHAUSTED alone may also be a full disk, or a message between hosts that is too long."""
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text and "os_error_code" not in text and bool(re.search("memory|alloc", text, re.I))
