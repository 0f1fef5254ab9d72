"""Memory of a long run does not grow: the resident sum of the main process and its workers, over thousands of batches.

With `pytest -s` the figures are printed.
"""

import os
from pathlib import Path
import subprocess
import sys
import time

import mixed_sources
import numpy as np
import printed_rows
from printed_rows import Memory, Printer
import pytest

from xgenmm_jax.training.metrics import read_metrics

pytestmark = pytest.mark.slow

BATCHES, STEPS = 10_000, 2_000
MOST_GROWTH = 0.05
MB = 1e6


def growth(samples: list[tuple[int, Memory]], length: int) -> float:
    """What memory grows by from a tenth of a run to its end by a line, as a part of where that begins: the larger of
    what is resident and what of it is anonymous. samples: steps and what was taken then."""
    steps, memory = zip(*(one for one in samples if one[0] >= length // 10), strict=True)
    worst = -np.inf
    for name, sizes in zip(Memory._fields, np.array(memory, np.float64).T / MB, strict=True):
        slope, start = np.polyfit(np.array(steps, np.float64), sizes, 1)
        first, last = (start + slope * step for step in (length / 10, length))
        tenths = ", ".join(f"{np.median(part):.0f}" for part in np.array_split(sizes, 9))
        print(
            f"\n{name}: {first:.1f} MB at step {length // 10:,} and {last:.1f} at {length:,} by the line, "
            f"{(last - first) / first:+.2%}; medians of the tenths {tenths}"
        )
        worst = max(worst, (last - first) / first)
    return worst


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_from_files_take_no_more_memory_as_a_run_goes_on(tmp_path, workers):
    mixed_sources.write(tmp_path)
    printer = Printer.start(tmp_path, (0, 0), 0, 1, workers)
    samples = []
    for step in range(1, BATCHES + 1):
        printer.step()
        if step % 20 == 0:
            samples.append((step, printed_rows.memory_of(printer.process.pid)))
    printer.kill()
    assert len(printer.children) >= workers
    assert growth(samples, BATCHES) < MOST_GROWTH


def test_training_takes_no_more_memory_as_it_goes_on(tmp_path):
    """The smallest model on nano's mixture of stage 1, with two worker processes."""
    command = [sys.executable, str(printed_rows.ROOT / "tests/fixtures/tiny_nano_run.py"), str(tmp_path), str(STEPS)]
    environment = os.environ | {"PYTHONPATH": str(printed_rows.ROOT), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    with open(tmp_path.with_suffix(".txt"), "wb") as words:
        process = subprocess.Popen(command, env=environment, stdout=words, stderr=words)
        samples = []
        try:
            while process.poll() is None:
                taken, rows = printed_rows.memory_of(process.pid), metrics(tmp_path)
                samples += [(rows[-1]["step"], taken)] if rows else []
                time.sleep(1.0)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, tmp_path.with_suffix(".txt").read_text()[-2000:]
    assert metrics(tmp_path)[-1]["step"] == STEPS
    assert growth([one for one in samples if one[0] < STEPS], STEPS) < MOST_GROWTH


def metrics(run: Path) -> list[dict[str, float]]:
    return read_metrics(run) if (run / "metrics.jsonl").exists() else []
