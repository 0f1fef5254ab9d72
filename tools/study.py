"""What studies of several arms over several seeds share: settings of a folder, runs that go on, what they cost."""

from collections.abc import Mapping
import json
from pathlib import Path
import sys
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.training import loop
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.goodput import GOODPUT
from xgenmm_jax.training.metrics import METRICS_FILE, is_row_of_any_kind, read_metrics
from xgenmm_jax.training.runs.side_files import read_rows

SETTINGS_FILE = "settings.json"


def keep_settings(folder: Path, fixed: Mapping[str, Any], subject: str) -> None:
    """Writes what a folder's figures are of, where nothing is there.

    fixed: without what may be added later; with the names of the figures, as runs that an older version judged lack
    some, and a mean would be of fewer runs than its line says.

    Raises ValueError, which begins with the subject, where the folder has others.
    """
    # As JSON has them: tuples are lists there.
    asked = json.loads(json.dumps(fixed))
    file = folder / SETTINGS_FILE
    if not file.is_file():
        files.make_folder(folder)
        files.write_whole(file, json.dumps(asked, indent=1))
        return
    there = files.read_json(file)
    for name, value in asked.items():
        if there.get(name) != value:
            raise ValueError(
                f"{subject}: '{folder}' is of {name} {there.get(name)}, asked for {value}; give another folder."
            )


def train(config: TrainConfig, run: Path, subject: str) -> None:
    """Trains a run to its end, from where it is. Raises SystemExit where a signal ends it."""
    rows = read_metrics(run) if (run / METRICS_FILE).is_file() else []
    if rows and rows[-1]["step"] == config.steps:
        return
    print(f"{config.name}, seed {config.seed}, into {run}", flush=True)
    result = loop.train(config, run)
    if result.signal is not None:
        sys.exit(f"{subject}: interrupted at step {result.step} of {run}; the same command goes on.")


def flops_of(run: Path) -> float:
    """Model FLOPs of a run's steps, by `Objective.flops` of their rows: those of a logged interval by its tokens."""
    total, tokens = 0.0, 0
    for row in read_metrics(run):
        per_token = row.get("model_flops_per_second", 0.0) / row["tokens_per_second"]
        total, tokens = total + per_token * (row["tokens"] - tokens), row["tokens"]
    return total


def seconds_of(run: Path) -> float:
    """What a run's steps took: without opening, compiling and saving."""
    rows = [row for row in read_rows(run / METRICS_FILE, is_row_of_any_kind) if GOODPUT in row]
    return float(rows[-1][f"{GOODPUT}/stepping/seconds"] + rows[-1][f"{GOODPUT}/reading/seconds"])
