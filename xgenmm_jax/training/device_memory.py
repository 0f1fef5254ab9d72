"""One sentence, with what to do, where a device's memory does not hold a run."""

from collections.abc import Iterator
import contextlib
import re

import jax

from xgenmm_jax.training.config import TrainConfig


class DeviceMemoryError(ValueError):
    """A device ran out of memory in training."""


@contextlib.contextmanager
def explained(config: TrainConfig) -> Iterator[None]:
    """An out-of-memory error of a device becomes a DeviceMemoryError that names the remedies; others pass through."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise DeviceMemoryError(_sentence(config, error)) from error


def _is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """RESOURCE_EXHAUSTED alone may also be a full disk, or a message between hosts that is too long."""
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text and "os_error_code" not in text and bool(re.search("memory|alloc", text, re.I))


def _sentence(config: TrainConfig, error: jax.errors.JaxRuntimeError) -> str:
    reason = str(error).strip().splitlines()[0].rstrip(".")
    rows = getattr(config.data, "batch_rows", None)
    fewer = "" if rows is None else f", fewer rows (--data.batch-rows, now {rows}, with another --workdir)"
    return (
        f"memory: a device has too little for this run ({reason}); continue it with more micro-batches "
        f"(--accumulation, now {config.accumulation}), rematerialization (--model.decoder.remat full) or more "
        f"chips{fewer}."
    )
