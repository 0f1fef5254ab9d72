"""Fills compiled_cells.csv: `xgenmm plan` for every stage, size and pod, each compiled until it fits.

    python -m tools.plan_table [--folder runs/plans] [--only 4b/stage1] [--again] [--render]

Cells are compiled one after another, each in a process of its own, with the settings that `xgenmm plan --search` finds.
A cell that is in compiled_cells.csv or has a file in the folder is skipped, so the command continues where it stopped,
on another machine too; --again compiles what is there anew. --render compiles nothing. Both write what was compiled
into compiled_cells.csv, the speeds (`tools/pod_speeds.py`) into docs/pods.csv, and the table of docs/pods.md.

The batch: stages 1 and 2 keep their 512 rows. Fine-tuning and DPO have 16 rows a step, too few for a pod: here every
chip has one. Stages are as long as the experiment says, in positions.
"""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import subprocess
import sys

from tools.pod_speeds import FILE as SPEEDS
from tools.pod_speeds import Speed, speed, text_of
from xgenmm_jax import files
from xgenmm_jax.planning.compiled_cells import FILE as COMPILED
from xgenmm_jax.planning.compiled_cells import Cell, read_cells, write_cells

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "pods.md"
BEGIN, END = "<!-- table: tools/plan_table.py -->\n", "<!-- end of table -->\n"
PODS = (("v5e:16x16", 1), ("v6e:16x16", 1), ("v5p:4x4x8", 1), ("v4:4x4x4", 1), ("v5e:16x16", 2))
STAGES = ("stage1", "stage2", "sft_single", "sft_multi", "dpo")
CELLS = [(size, stage, *pod) for size in ("4b", "14b") for pod in PODS for stage in STAGES]
"""Most useful first."""
COLUMNS = (
    "stage", "pod", "rows", "a chip at a time", "remat", "replica x fsdp x tensor, accumulation", "peak GiB",
    "step s at the bound", "MFU at the bound", "expected", "tokens/s a chip", "hours", "chip-hours",
)  # fmt: skip
USUAL_REMAT = "minimal_with_context"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "plans", help="where cells are kept; not under git"
    )
    parser.add_argument("--only", default="", help="cells whose name begins so: 4b/stage1, 14b")
    parser.add_argument("--again", action="store_true", help="compile cells that are there, but have no file, too")
    parser.add_argument("--render", action="store_true", help="write files and table, and compile nothing")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    done = set() if arguments.again else {key_of(cell) for cell in read_cells(COMPILED)}
    for cell in CELLS:
        path = file_of(cell, arguments.folder)
        wanted = not arguments.render and name_of(cell).startswith(arguments.only) and cell not in done
        if wanted and not path.is_file():
            compile_cell(cell, path)
            keep(arguments.folder)
    keep(arguments.folder)


def name_of(cell: tuple[str, str, str, int]) -> str:
    size, stage, topology, slices = cell
    return f"{size}/{stage}/{topology}" + (f"x{slices}" if slices > 1 else "")


def file_of(cell: tuple[str, str, str, int], folder: Path) -> Path:
    return folder / f"{name_of(cell).replace('/', '-').replace(':', '-')}.json"


def compile_cell(cell: tuple[str, str, str, int], path: Path) -> None:
    """Keeps the plan of the best settings that fit, or the last that does not."""
    size, stage, topology, slices = cell
    experiment = f"experiments/{stage}.py" + (":config_14b" if size == "14b" else "")
    print(name_of(cell), flush=True)
    words = ["plan", experiment, "--topology", topology, "--slices", str(slices), "--search", "--json", str(path)]
    code = "import sys; from xgenmm_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=environment)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{name_of(cell)}: `xgenmm {' '.join(words)}` ended with {done.returncode}.")


def cell_of(cell: tuple[str, str, str, int], plan: dict) -> Cell:
    """What is kept of a plan that fits."""
    memory = {kind: round(size / 2**30, 2) for kind, size in plan["memory"].items()}
    sent = plan["collectives"].values()
    return Cell(
        *cell,
        rows=plan["rows"],
        rows_at_a_time=float(plan["rows_per_chip"]),
        length=plan["length"],
        crops=plan["crops"],
        remat=plan["remat"],
        **plan["mesh"],
        accumulation=plan["accumulation"],
        state_gib=round(sum(plan["memory"][kind] for kind in ("parameters", "optimizer", "reference")) / 2**30, 2),
        temporaries_gib=memory["temporaries"],
        peak_gib=memory["peak"],
        hbm_gib=memory["available"],
        links_gb=round(sum(kind["link_bytes"] for kind in sent) / 1e9, 2),
        exposed_gb=round(sum(kind["exposed_bytes"] for kind in sent) / 1e9, 2),
    )


def keep(folder: Path) -> None:
    """Writes the plans that are done beside the cells that are there: compiled_cells.csv, docs/pods.csv, the table."""
    cells = {key_of(cell): cell for cell in read_cells(COMPILED)}
    for cell in CELLS:
        path = file_of(cell, folder)
        plan = files.read_json(path) if path.is_file() else None
        if plan is not None and plan["fits"]:
            cells[cell] = cell_of(cell, plan)
        elif plan is not None:
            print(f"{name_of(cell)}: {plan['advice']}")
    kept = [cells[cell] for cell in CELLS if cell in cells]
    write_cells(COMPILED, kept)
    rows = tuple(speed(cell) for cell in kept)
    files.write_whole(SPEEDS, text_of(rows))
    text = files.read_text(DOCUMENT)
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    files.write_whole(DOCUMENT, before + BEGIN + tables(kept, rows) + END + after)


def key_of(cell: Cell | Speed) -> tuple[str, str, str, int]:
    return cell.size, cell.stage, cell.topology, cell.slices


def tables(cells: Sequence[Cell], rows: Sequence[Speed]) -> str:
    """A table a size."""
    lines = []
    for size in dict.fromkeys(cell.size for cell in cells):
        lines += [f"\n### {size.upper()}\n\n", f"| {' | '.join(COLUMNS)} |\n", "|---" * len(COLUMNS) + "|\n"]
        lines += [row(cell, one) for cell, one in zip(cells, rows, strict=True) if cell.size == size]
    return "".join([*lines, "\n"])


def row(cell: Cell, one: Speed) -> str:
    """One cell as a line of the table."""
    mesh = f"{cell.replica} x {cell.fsdp} x {cell.tensor}"
    figures = [
        cell.stage,
        f"{cell.slices} x {cell.topology}" if cell.slices > 1 else cell.topology,
        f"{cell.rows}",
        f"{cell.rows_at_a_time:g}",
        "" if cell.remat == USUAL_REMAT else cell.remat,
        mesh + (f", {cell.accumulation}" if cell.accumulation > 1 else ""),
        f"{cell.peak_gib:.2f} of {cell.hbm_gib:.2f}",
        f"{one.bound_s:.2f}",
        f"{one.bound_mfu:.0%}" + (f", {one.exposed_mfu:.0%}" if one.exposed_mfu is not None else ""),
        f"{one.expected_mfu:.0%}",
        f"{one.expected_tokens:,.0f}",
        hours_of(one.hours),
        f"{one.chip_hours:,.0f}",
    ]
    return f"| {' | '.join(figures)} |\n"


def hours_of(hours: float) -> str:
    """As "285", "30", "3.4", "0.35"."""
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"


if __name__ == "__main__":
    main()
