"""`xgenmm data show FILE[:RUN] --window N`: a page of packed rows as the model gets them."""

from collections.abc import Sequence
from dataclasses import dataclass
import re
import sys
from typing import Annotated

import tyro

from xgenmm_jax import files
from xgenmm_jax.cli.experiment_files import load_experiment, take_arguments
from xgenmm_jax.cli.options import checked_path, parse_overrides, refuse_no_file, take_option
from xgenmm_jax.cli.train import OTHER_NAMES
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.paths import local_path
from xgenmm_jax.reporting import data_page
from xgenmm_jax.reporting.window_rows import window_rows
from xgenmm_jax.training.config import TrainConfig

USAGE = (
    "usage: xgenmm data show FILE[:RUN] [options]\n\n"
    "Writes a page (one HTML file that loads nothing) of packed rows as the model gets them: crops, text, its\n"
    "targets, what was left out and why, and the window's share of each source.\n\n"
    "  --window N      Window of the run, from 0 (0).\n"
    f"  --rows N        How many of its rows, from the first on, at most {data_page.MOST_ROWS} (8).\n"
    "  --output FILE   The page; NAME-window-N.html in the current folder by default.\n"
    "  --seed N        The run's, which orders the data.\n"
    "  --at SIZE       nano or micro: an ablation's arm on the stages of that size instead of the paper's.\n\n"
    "Every other option overrides the experiment, as with `xgenmm train`: --data.row.length 4096.\n"
    "--help-all lists them."
)


@dataclass(frozen=True)
class Options:
    """A page of packed rows. Every option but the first ones overrides a field of the experiment's TrainConfig."""

    window: int
    """Window of the run, from 0."""
    rows: int
    """How many of its rows, from the first on."""
    output: str | None
    """The page. By default NAME-window-N.html in the current folder."""
    at: str | None
    """nano or micro: an ablation's arm on the stages of that size instead of the paper's."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]


def main(argv: Sequence[str]) -> int:
    """Writes the page and prints where it is."""
    argv = list(argv)
    if not argv or {"-h", "--help"} & set(argv) or argv[0].startswith("-"):
        is_help = bool({"-h", "--help", "--help-all"} & set(argv))
        print(USAGE, file=sys.stdout if is_help else sys.stderr)
        return 0 if is_help else 2
    path, *rest = argv
    rest, at = take_option(rest, "--at")
    rest = ["--help" if word == "--help-all" else word for word in rest]
    experiment = local_path(path, "experiment")
    rest, given = take_arguments(experiment, rest)
    options = Options(0, 8, None, None, load_experiment(experiment, at, given))
    options = parse_overrides(Options, options, rest, f"xgenmm data show {path}", OTHER_NAMES, "--help-all")
    config = options.config
    if not isinstance(config.data, DataConfig):
        raise ValueError(
            f"data show: '{path}' trains on {type(config.data).__name__}, which has no packed rows; give an experiment "
            "whose data are a DataConfig, as experiments/nano/stage1.py."
        )
    if options.window < 0:
        raise ValueError(f"--window: got {options.window}, wanted 0 or more.")
    if not 1 <= options.rows <= data_page.MOST_ROWS:
        raise ValueError(f"--rows: got {options.rows}, wanted 1 to {data_page.MOST_ROWS}.")
    # Where the page goes is checked before anything is read.
    output = options.output
    if output is None:
        output = default_name(config.name, options.window)
    output = checked_path(output, "--output")
    refuse_no_file(output, "--output")
    rows = window_rows(config.data, config.seed, options.window, options.rows)
    files.write_whole(output, data_page.render(config.name, rows))
    print(f"{output}: {len(rows.shown)} of {rows.rows:,} rows of window {options.window}")
    return 0


def default_name(run: str, window: int) -> str:
    """The page's file: "nano/stage1" -> "nano-stage1-window-7.html"; what is no plain character becomes "-"."""
    return f"{re.sub('[^A-Za-z0-9_.]+', '-', run).strip('-.')[:100] or 'run'}-window-{window}.html"
