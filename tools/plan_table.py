"""Fills the table of docs/pods.md: `xgenmm plan` for every stage, size and pod, each compiled until it fits.

    python tools/plan_table.py [--folder runs/plans] [--only 4b/stage1] [--again] [--render]

Cells are compiled one after another, each in a process of its own, with the settings that `xgenmm plan --search` finds.
A cell that has a line in the table or a file in the folder is skipped, so the command continues where it stopped, on
another machine too; --again compiles what has a line anew. --render writes the files that are there into the table and
compiles nothing; lines without a file stay.

The batch: stages 1 and 2 keep their 512 rows. Fine-tuning and DPO have 16 rows a step, too few for a pod: here every
chip has one. Stages are as long as the experiment says, in positions.
"""

import argparse
import os
from pathlib import Path
import subprocess
import sys

from xgenmm_jax import files

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "pods.md"
BEGIN, END = "<!-- table: tools/plan_table.py -->\n", "<!-- end of table -->\n"
PODS = (("v5e:16x16", 1), ("v6e:16x16", 1), ("v5p:4x4x8", 1), ("v4:4x4x4", 1), ("v5e:16x16", 2))
STAGES = ("stage1", "stage2", "sft_single", "sft_multi", "dpo")
CELLS = [(size, stage, *pod) for size in ("4b", "14b") for pod in PODS for stage in STAGES]
"""Most useful first."""
COLUMNS = (
    "size, stage", "pod", "rows", "a chip at a time", "remat", "replica x fsdp x tensor", "accumulation",
    "state GiB", "temporaries", "peak", "of", "bound by", "step s at the bound", "tokens/s a chip at the bound",
    "at 50 % MFU", "days", "chip-hours",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "plans", help="where cells are kept; not under git"
    )
    parser.add_argument("--only", default="", help="cells whose name begins so: 4b/stage1, 14b")
    parser.add_argument("--again", action="store_true", help="compile cells that have a line, but no file, too")
    parser.add_argument("--render", action="store_true", help="write the table and compile nothing")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    written = {} if arguments.again else lines_of(files.read_text(DOCUMENT))
    for cell in CELLS:
        path = file_of(cell, arguments.folder)
        wanted = not arguments.render and name_of(cell).startswith(arguments.only) and head_of(cell) not in written
        if wanted and not path.is_file():
            compile_cell(cell, path)
            render(arguments.folder)
    render(arguments.folder)


def name_of(cell: tuple[str, str, str, int]) -> str:
    size, stage, topology, slices = cell
    return f"{size}/{stage}/{topology}" + (f"x{slices}" if slices > 1 else "")


def file_of(cell: tuple[str, str, str, int], folder: Path) -> Path:
    return folder / f"{name_of(cell).replace('/', '-').replace(':', '-')}.json"


def head_of(cell: tuple[str, str, str, int]) -> str:
    """What a cell's line begins with."""
    size, stage, topology, slices = cell
    return f"| {size} {stage} | {f'{slices} x {topology}' if slices > 1 else topology} |"


def lines_of(text: str) -> dict[str, str]:
    """The table's lines by what they begin with."""
    lines = text.split(BEGIN)[1].split(END)[0].split("\n")[:-1]
    return {"|".join(line.split("|")[:3]) + "|": f"{line}\n" for line in lines}


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


def render(folder: Path) -> None:
    """Writes the cells that are done between the document's markers, beside the lines that are there already."""
    text = files.read_text(DOCUMENT)
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    written = lines_of(text)
    lines = [f"| {' | '.join(COLUMNS)} |\n", "|---" * len(COLUMNS) + "|\n"]
    for cell in CELLS:
        path = file_of(cell, folder)
        if path.is_file():
            lines.append(row(cell, files.read_json(path)))
        elif head_of(cell) in written:
            lines.append(written[head_of(cell)])
    files.write_whole(DOCUMENT, before + BEGIN + "".join(lines) + END + after)


def row(cell: tuple[str, str, str, int], plan: dict) -> str:
    """One cell as a line of the table."""
    mesh = plan["mesh"]
    settings = [
        f"{plan['rows']}",
        f"{plan['rows_per_chip']:g}",
        plan["remat"],
        f"{mesh['replica']} x {mesh['fsdp']} x {mesh['tensor']}",
        f"{plan['accumulation']}",
    ]
    if not plan["fits"]:
        figures = [plan["advice"], *[""] * (len(COLUMNS) - 2 - len(settings) - 1)]
    else:
        memory = {kind: size / 2**30 for kind, size in plan["memory"].items()}
        state = memory["parameters"] + memory["optimizer"] + memory["reference"]
        seconds, bound, expected = plan["seconds"], plan["bound"], plan["expected"]
        figures = [
            *(f"{gib:.2f}" for gib in (state, memory["temporaries"], memory["peak"], memory["available"])),
            max(("arithmetic", "links", "network"), key=seconds.get),
            f"{seconds['bound']:.2f}",
            f"{bound['tokens_per_second_per_chip']:,.0f}",
            f"{expected['tokens_per_second_per_chip']:,.0f}",
            f"{expected['days']:.2f}",
            f"{expected['chip_hours']:,.0f}",
        ]
    return f"{head_of(cell)} {' | '.join([*settings, *figures])} |\n"


if __name__ == "__main__":
    main()
