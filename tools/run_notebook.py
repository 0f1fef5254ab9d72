"""Runs a notebook in place from top to bottom and keeps its images; what differs between machines is left away.

    python tools/run_notebook.py notebooks/probe.ipynb XGENMM_RUN=runs/demo/sft_multi XGENMM_BEFORE=runs/demo/stage1

Arguments after the notebook are variables for its kernel, paths from here. Needs the extra `test`.
"""

import os
from pathlib import Path
import sys

import nbclient
import nbformat

TIMEOUT_S = 1800


def run(notebook: Path, variables: dict[str, str]) -> nbformat.NotebookNode:
    """The executed notebook. Raises nbclient.exceptions.CellExecutionError where a cell fails."""
    made = nbformat.read(notebook, as_version=4)
    environment = {**os.environ, **variables, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    client = nbclient.NotebookClient(
        made, timeout=TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(notebook.parent)}}
    )
    client.execute(env=environment)
    for cell in made.cells:
        cell.metadata.clear()
        for output in cell.get("outputs", ()):
            if "data" in output:
                # The text beside an image holds an address in memory.
                kinds = ("image/png",) if "image/png" in output["data"] else ("text/plain",)
                output["data"] = {kind: output["data"][kind] for kind in kinds}
    made.metadata.pop("widgets", None)
    made.metadata["language_info"] = {"name": "python"}
    return made


def main(argv: list[str]) -> int:
    notebook = Path(argv[0])
    variables = dict(pair.split("=", 1) for pair in argv[1:])
    folders = {name: str(Path(value).resolve()) for name, value in variables.items()}
    nbformat.write(run(notebook, folders), notebook)
    print(f"{notebook}: {notebook.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
