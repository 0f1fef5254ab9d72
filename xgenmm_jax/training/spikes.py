"""Steps whose loss or gradient norm leaps, with the samples that were in them."""

from collections import deque
import json
import logging
import statistics
from typing import Any

import jax

from xgenmm_jax.appending import Lines
from xgenmm_jax.paths import Path
from xgenmm_jax.training.runs.side_files import has_step, keep_rows

LOG = logging.getLogger(__name__)

FIGURES = ("loss", "grad_norm")
HISTORY = 100
"""Steps that a step is compared with."""
LEAST_HISTORY = 20
DEVIATIONS = 10.0
"""Median absolute deviations above the median; 10 are nearly 7 standard deviations of a normal figure."""

_NAMED = 8  # samples on the console; the file holds all


def spikes_file(host: int) -> str:
    """Name in the run folder. Each host knows the samples of its own rows."""
    return "spikes.jsonl" if host == 0 else f"spikes.{host}.jsonl"


class Spikes:
    """Judges steps in their order and keeps what leaps.

    A spike is at least twice the running median and at least DEVIATIONS above it: neither a low plateau's noise nor a
    steep fall at the start is one, and spikes hardly move a median.

    start_step: what an earlier, killed process wrote about later steps is dropped.
    """

    def __init__(self, run: Path, start_step: int):
        self._path = run / spikes_file(jax.process_index())
        self._history: dict[str, deque[float]] = {name: deque(maxlen=HISTORY) for name in FIGURES}
        if self._path.exists():
            keep_rows(self._path, has_step, start_step)
        self._lines = Lines(self._path)

    def judge(self, step: int, figures: dict[str, float], sample_ids: list[str]) -> None:
        """Logs the step if it is a spike. figures: at least those of FIGURES, all finite."""
        for name in FIGURES:
            value, history = figures[name], self._history[name]
            median = threshold(history)
            if median is not None and value > median[1]:
                self._keep({"step": step, "figure": name, "value": value, "median": median[0], "samples": sample_ids})
            history.append(value)

    def _keep(self, row: dict[str, Any]) -> None:
        self._lines.write(json.dumps(row) + "\n")
        samples = row["samples"]
        more = f" and {len(samples) - _NAMED} more in {self._path.name}" if len(samples) > _NAMED else ""
        LOG.warning(
            "step %d: %s %.4g, running median %.4g; its samples: %s%s",
            row["step"], row["figure"], row["value"], row["median"], ", ".join(samples[:_NAMED]), more,
        )  # fmt: skip


def threshold(history: deque[float]) -> tuple[float, float] | None:
    """(median, what a spike exceeds); None while there is too little to compare with."""
    if len(history) < LEAST_HISTORY:
        return None
    median = statistics.median(history)
    deviation = statistics.median(abs(value - median) for value in history)
    return median, median + max(DEVIATIONS * deviation, abs(median))
