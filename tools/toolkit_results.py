"""Answers and scores as the toolkits wrote them, beside those of `xgenmm evaluate`."""

from collections.abc import Mapping
import csv
from dataclasses import dataclass
import json
import math
from pathlib import Path
import subprocess

from xgenmm_jax import files
from xgenmm_jax.evaluation.tasks.task import cut

_READ_WORKBOOK = """
import pandas, sys
read = pandas.read_excel(sys.argv[1], dtype=str, keep_default_na=False)
print(read[["index", "prediction"]].to_json(orient="values"))
"""
EQUAL = 1e-9
"""Relative: means that are added up in another order differ in the last digit."""


@dataclass(frozen=True)
class Compared:
    """One line of the table: a score, or how many of a task's answers are equal."""

    toolkit: str
    task: str
    what: str
    theirs: str
    ours: str
    is_equal: bool


def compare_lmms_eval(output: Path, ours: Path) -> list[Compared]:
    """The newest results in lmms-eval's --output_path against ours of the profile lmms."""
    results = json.loads(_newest(output, "*_results.json").read_text(encoding="utf-8"))["results"]
    rows = []
    for task in ("pope", "muirbench"):
        lines = [line for _, line in files.json_lines(_newest(output, f"*_samples_{task}_local.jsonl"))]
        theirs = {str(line["doc_id"]): _first(line["filtered_resps"]) for line in lines}
        mine = {id: cut(text, ("\n\n",)).strip() for id, text in _predictions(ours, task).items()}
        rows.append(_answers("lmms-eval", task, theirs, mine))
        scores = _scores(ours, task)
        for key, value in results[f"{task}_local"].items():
            name = key.partition(",")[0]
            if isinstance(value, int | float) and "stderr" not in name and name in scores:
                rows.append(_score("lmms-eval", task, name, value, scores[name] / 100))
    return rows


def compare_vlmevalkit(output: Path, ours: Path, python: Path) -> list[Compared]:
    """The newest results in VLMEvalKit's --work-dir against ours of the profile fork. python: that can read .xlsx."""
    rows = []
    for task, name, suffix in (("pope", "POPE", "score"), ("muirbench", "MUIRBench", "acc")):
        workbook = _newest(output, f"xgenmm_jax_{name}.xlsx")
        read = subprocess.run(
            [python, "-c", _READ_WORKBOOK, workbook], capture_output=True, text=True, check=True
        ).stdout
        theirs = {str(index): str(text) for index, text in json.loads(read)}
        rows.append(_answers("VLMEvalKit", task, theirs, _predictions(ours, task)))
        scores = _scores(ours, task)
        with _newest(output, f"xgenmm_jax_{name}_{suffix}.csv").open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                for key, value in line.items():
                    split = line["split"]
                    known = key if split in ("Overall", "none") else f"{split}/{key}"
                    if key != "split" and known in scores:
                        percent = 1 if task == "pope" else 100
                        rows.append(_score("VLMEvalKit", task, known, float(value) * percent, scores[known]))
    return rows


def table(rows: list[Compared]) -> str:
    """One line a comparison, in columns."""
    lines = [("toolkit", "task", "what", "theirs", "xgenmm evaluate", "")]
    for row in rows:
        lines.append((row.toolkit, row.task, row.what, row.theirs, row.ours, "" if row.is_equal else "DIFFERS"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _answers(toolkit: str, task: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> Compared:
    equal = sum(theirs.get(id) == text for id, text in ours.items())
    kinds = ", ".join(sorted(set(ours.values()))[:6])
    for id in sorted(theirs.keys() | ours.keys()):
        if theirs.get(id) != ours.get(id):
            print(f"{toolkit}, {task} {id}: {theirs.get(id)!r}, ours {ours.get(id)!r}")
    return Compared(
        toolkit, task, f"answers ({kinds})", str(len(theirs)), f"{equal} equal", equal == len(ours) == len(theirs)
    )


def _score(toolkit: str, task: str, name: str, theirs: float, ours: float) -> Compared:
    is_equal = math.isclose(theirs, ours, rel_tol=EQUAL, abs_tol=EQUAL)
    return Compared(toolkit, task, name, f"{theirs:.6f}", f"{ours:.6f}", is_equal)


def _first(responses: list) -> str:
    """Of one request: [[text]]."""
    while isinstance(responses, list):
        responses = responses[0]
    return responses


def answers_of(folder: Path, task: str) -> set[str]:
    """The different answers among our predictions."""
    return set(_predictions(folder, task).values())


def _predictions(folder: Path, task: str) -> dict[str, str]:
    lines = [line for _, line in files.json_lines(folder / f"{task}.jsonl")]
    return {line["id"]: line["prediction"] for line in lines if "id" in line}


def _scores(folder: Path, task: str) -> dict[str, float]:
    scores = json.loads((folder / f"{task}.scores.json").read_text(encoding="utf-8"))["scores"]
    return {name: one["value"] for name, one in scores.items()}


def _newest(folder: Path, pattern: str) -> Path:
    """Raises FileNotFoundError where the toolkit wrote none."""
    found = sorted(folder.rglob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"no {pattern} in '{folder}'; look at what the toolkit printed.")
    return found[-1]
