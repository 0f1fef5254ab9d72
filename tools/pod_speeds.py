"""How fast each compiled cell can be, and what is expected of it: docs/pods.csv, computed without compiling.

    python -m tools.pod_speeds

Settings are those of compiled_cells.csv, rows those that the experiments have now. Traffic counts where the compiled
program's was kept; else as hidden.
"""

import csv
import dataclasses
import functools
import importlib
import io
from pathlib import Path
from typing import NamedTuple

from xgenmm_jax import files
from xgenmm_jax.planning import bounds, estimates
from xgenmm_jax.planning.collectives import Traffic
from xgenmm_jax.planning.compiled_cells import Cell, compiled_cells
from xgenmm_jax.planning.search import with_rows
from xgenmm_jax.planning.topology import named_topology
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.sharding import MeshConfig

FILE = Path(__file__).parent.parent / "docs" / "pods.csv"
DIGITS = 4


class Speed(NamedTuple):
    """A stage on a pod. Seconds of a step; what each field of `Times` counts stands there."""

    size: str
    stage: str
    topology: str
    slices: int
    chips: int
    rows: int
    length: int
    crops: int
    """Of a row, as the experiment has them."""
    steps: int
    model_flops: float
    """Of a step."""
    arithmetic_s: float
    tiles_s: float
    memory_s: float
    optimizer_s: float
    links_s: float | None
    exposed_s: float | None
    bound_by: str
    bound_s: float
    bound_mfu: float
    """All traffic hidden."""
    exposed_bound_s: float | None
    exposed_mfu: float | None
    """With the compiled program's exposed traffic."""
    expected_mfu: float
    bound_tokens: float
    """Positions a second and chip."""
    expected_tokens: float
    hours: float
    """Of the whole stage, as expected."""
    chip_hours: float


def config_of(cell: Cell) -> TrainConfig:
    """The stage as it is now, with a cell's settings."""
    module = importlib.import_module(f"experiments.{cell.stage}")
    base = with_rows(module.config_14b() if cell.size == "14b" else module.config(), cell.rows)
    decoder = dataclasses.replace(base.model.decoder, remat=cell.remat)
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, decoder=decoder),
        mesh=MeshConfig(cell.replica, cell.fsdp, cell.tensor),
        accumulation=cell.accumulation,
    )


def speed(cell: Cell) -> Speed:
    """By FLOPs, the chips and the traffic that was kept."""
    config, pod = config_of(cell), named_topology(cell.topology, cell.slices)
    chips, chip = len(pod.devices) // pod.chip.devices, pod.chip
    mesh = {"replica": cell.replica, "fsdp": cell.fsdp, "tensor": cell.tensor}
    is_known = cell.links_gb is not None
    traffic = {"all": Traffic(1, cell.links_gb * 1e9, 0.0, cell.exposed_gb * 1e9)} if is_known else {}
    times = bounds.times(config, mesh, estimates.trained_parameters(config, mesh), traffic, pod)
    # At an MFU of 1, and as long as is expected: never faster than the bound.
    flops = bounds.work(config).model.total
    peak_s = flops / len(pod.devices) / chip.peak_flops
    expected_s = max(peak_s / chip.usual_mfu, times.exposed_bound)
    positions = cell.rows * cell.length
    hours = config.steps * expected_s / 3600
    return Speed(
        *(cell.size, cell.stage, cell.topology, cell.slices, chips, cell.rows, cell.length),
        crops=config.data.row.crops,
        steps=config.steps,
        model_flops=flops,
        arithmetic_s=times.arithmetic,
        tiles_s=times.tiles,
        memory_s=times.memory,
        optimizer_s=times.optimizer,
        links_s=times.links if is_known else None,
        exposed_s=times.exposed if is_known else None,
        bound_by=times.slowest,
        bound_s=times.bound,
        bound_mfu=peak_s / times.bound,
        exposed_bound_s=times.exposed_bound if is_known else None,
        exposed_mfu=peak_s / times.exposed_bound if is_known else None,
        expected_mfu=peak_s / expected_s,
        bound_tokens=positions / times.bound / chips,
        expected_tokens=positions / expected_s / chips,
        hours=hours,
        chip_hours=hours * chips,
    )


@functools.cache
def speeds() -> tuple[Speed, ...]:
    """Of every compiled cell."""
    return tuple(speed(cell) for cell in compiled_cells())


def text_of(rows: tuple[Speed, ...]) -> str:
    """As CSV; floats have DIGITS digits, what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Speed._fields)
    for row in rows:
        rounded = [float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for value in row]
        writer.writerow([f"{value:.15g}" if isinstance(value, float) else value for value in rounded])
    return text.getvalue()


def read() -> dict[tuple[str, str, str, int], dict[str, str]]:
    """The written rows by (size, stage, topology, slices)."""
    rows = csv.DictReader(io.StringIO(files.read_text(FILE)))
    return {(row["size"], row["stage"], row["topology"], int(row["slices"])): row for row in rows}


if __name__ == "__main__":
    files.write_whole(FILE, text_of(speeds()))
