"""What was compiled for pods: settings that fit, their memory and traffic, a row of compiled_cells.csv a cell.

`tools/plan_table.py` writes the file from plans and docs/pods.md's table from it, with speeds computed from FLOPs;
`planning/presets.py` takes settings from it.
"""

from collections.abc import Iterable
import csv
import dataclasses
from dataclasses import dataclass
import functools
import io
from pathlib import Path
from typing import Any

from xgenmm_jax import files

FILE = Path(__file__).with_name("compiled_cells.csv")


@dataclass(frozen=True)
class Cell:
    """A stage of one size on one topology, as the compiler found it to fit.

    size, stage: as in a run's name, "4b" and "stage1". topology: of one slice, "v5e:16x16". rows: of the global batch.
    rows_at_a_time: that a device works on; below 1 where the tensor axis shares a row. length, crops: of a row, as
    compiled. remat: of the decoder. state_gib: parameters, optimizer and reference. Memory is a device's, in GiB.
    links_gb, exposed_gb: received over a slice's links in a step, 1e9 bytes, and the part that runs beside no other
    work; None where they were not kept.
    """

    size: str
    stage: str
    topology: str
    slices: int
    rows: int
    rows_at_a_time: float
    length: int
    crops: int
    remat: str
    replica: int
    fsdp: int
    tensor: int
    accumulation: int
    state_gib: float
    temporaries_gib: float
    peak_gib: float
    hbm_gib: float
    links_gb: float | None
    exposed_gb: float | None


COLUMNS = tuple(field.name for field in dataclasses.fields(Cell))


@functools.cache
def compiled_cells() -> tuple[Cell, ...]:
    """All of the package's file, in its order."""
    return read_cells(FILE)


def read_cells(path: Path) -> tuple[Cell, ...]:
    """Raises ValueError, which names the line, for columns or values that are others than `Cell`'s."""
    reader = csv.DictReader(io.StringIO(files.read_text(path)))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"'{path}': got the columns {reader.fieldnames}, wanted {','.join(COLUMNS)}.")
    return tuple(_cell(row, path, reader.line_num) for row in reader)


def _cell(row: dict[str, Any], path: Path, line: int) -> Cell:
    if None in row or None in row.values():
        raise ValueError(f"'{path}' line {line}: got {len(row)} values or too few, wanted {len(COLUMNS)}.")
    try:
        return Cell(**{field.name: _value(field.type, row[field.name]) for field in dataclasses.fields(Cell)})
    except ValueError as error:
        raise ValueError(f"'{path}' line {line}: {error}; wanted what `Cell` says.") from error


def _value(kind: Any, text: str) -> Any:
    if kind == float | None:
        return float(text) if text else None
    return kind(text)


def write_cells(path: Path, cells: Iterable[Cell]) -> None:
    """The inverse of `read_cells`; whole floats without a point, None as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in cells:
        values = dataclasses.astuple(cell)
        writer.writerow([f"{value:.10g}" if isinstance(value, float) else value for value in values])
    files.write_whole(path, text.getvalue())
