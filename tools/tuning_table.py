"""What fine-tuning on 500 rows of one's own gives and takes, on a finished run of nano, over several seeds.

    python -m tools.tuning_table FOLDER [--run runs/demo/sft_multi]

Writes the rows (`nano/tuning_rows.py`) into FOLDER, trains on them by `xgenmm train experiments/finetune.py` and
`experiments/finetune.py:lora`, once a seed, which gives the order of the rows and the start of LoRA, and asks every run
by `xgenmm evaluate` what is new and what it could before. Prints a table, also in FOLDER as table.md and table.json.
What is finished stays: the same command goes on after a kill. Some 20 minutes on 2 CPU cores.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import json
import math
from pathlib import Path
import statistics
import subprocess

import rich.console

from tools import study, study_table
from tools.toolkit_environments import ROOT
from tools.try_toolkits import XGENMM
from xgenmm_jax import files
from xgenmm_jax.models import lora
from xgenmm_jax.nano import tuning_rows
from xgenmm_jax.reporting.machine import describe_machine, machine_sentence
from xgenmm_jax.training.config import load_config
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs import checkpoints

KINDS = ("beside", "questions", "multi_image", "handwriting")
"""What is asked: the new question, and some of what the stages teach."""
SHOWN = {
    "beside": "the new question",
    "questions/mean": "old: questions about one image",
    "multi_image": "old: several images",
    "handwriting": "old: handwritten digits",
}
WAYS = ("whole", "lora")
EXPERIMENTS = {"whole": "experiments/finetune.py", "lora": "experiments/finetune.py:lora"}


@dataclass(frozen=True)
class Settings:
    """What a table is of. rates: peak learning rates of `WAYS`."""

    run: str
    rows: int = 500
    rows_seed: int = 0
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 60
    rates: tuple[float, float] = (3e-4, 1e-3)
    items: int = 300


@dataclass(frozen=True)
class Trained:
    """One run. scores: by the names of `xgenmm evaluate`, fractions. seconds: of its training steps."""

    way: str
    seed: int
    scores: dict[str, float]
    seconds: float
    parameters: int


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and asks what is not there yet; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, default=Path("runs/demo/sft_multi"), help="a finished run")
    parser.add_argument("--rows", type=int, default=Settings.rows)
    parser.add_argument("--rows-seed", type=int, default=Settings.rows_seed, help="draws other rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=Settings.seeds)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--rates", type=float, nargs=2, default=Settings.rates, metavar=("WHOLE", "LORA"))
    parser.add_argument("--items", type=int, default=Settings.items, help="questions of each kind")
    options = parser.parse_args(argv)
    settings = Settings(
        str(options.run.resolve()), options.rows, options.rows_seed, tuple(options.seeds), options.steps,
        tuple(options.rates), options.items,
    )  # fmt: skip
    folder = options.folder.resolve()
    begin(folder, settings)
    before = ask(options.run.resolve(), folder / "before.json", settings)
    runs = [train_and_ask(folder, way, seed, settings) for seed in settings.seeds for way in WAYS]
    lines = table(before, runs)
    write(folder, settings, before, runs, lines)
    console = rich.console.Console()
    title = f"{settings.rows} rows, {settings.steps} steps, seeds {seeds(settings)}"
    study_table.show(title, lines, console)
    console.print(f"also in {folder / 'table.md'} and table.json", soft_wrap=True)


def begin(folder: Path, settings: Settings) -> None:
    """Writes rows and settings, to which seeds may be added later. Raises ValueError where the folder has others."""
    fixed = {name: value for name, value in vars(settings).items() if name != "seeds"}
    if not (folder / study.SETTINGS_FILE).is_file():
        tuning_rows.write(folder, settings.rows, settings.rows_seed)
    study.keep_settings(folder, fixed, "tuning table")
    print(f"{settings.rows} rows of seed {settings.rows_seed} in {folder}; runs of the seeds {seeds(settings)}")


def seeds(settings: Settings) -> str:
    return ", ".join(map(str, settings.seeds))


def ask(run: Path, file: Path, settings: Settings) -> dict[str, float]:
    """Scores of a run, from a file that is there or as `xgenmm evaluate` leaves it."""
    if not file.is_file():
        call("evaluate", run, "--kinds", *KINDS, "--items", settings.items, "--json", file)
    return files.read_json(file)["metrics"]


def train_and_ask(folder: Path, way: str, seed: int, settings: Settings) -> Trained:
    """A run of a way and a seed, trained as far as it is not yet."""
    run, scores = folder / f"{way}_{seed}", folder / f"{way}_{seed}.json"
    if not scores.is_file():
        call(
            "train", EXPERIMENTS[way], "--initialize.run", settings.run, "--data.json", folder / tuning_rows.ROWS_FILE,
            "--data.images", folder / tuning_rows.IMAGES, "--steps", settings.steps, "--seed", seed,
            "--optimizer.peak-lr", settings.rates[WAYS.index(way)], "--workdir", run,
        )  # fmt: skip
    asked = ask(run, scores, settings)
    return Trained(way, seed, asked, float(read_metrics(run)[-1]["seconds"]), trained_parameters(run))


def call(*arguments: object) -> None:
    """`xgenmm` of this checkout. Raises CalledProcessError where it fails, having said why."""
    print("xgenmm", *arguments, flush=True)
    subprocess.run([*XGENMM, *map(str, arguments)], cwd=ROOT, check=True)


def trained_parameters(run: Path) -> int:
    """How many numbers a run's optimizer changed."""
    config = load_config(run)
    shapes = checkpoints.param_shapes(checkpoints.newest(run) / "params")
    if config.lora is not None:
        below = config.lora.whole
        names = [n for n in shapes if n.endswith(lora.UPDATES) or any(lora.is_below(n, prefix) for prefix in below)]
    else:
        names = [n for n in shapes if not any(lora.is_below(n, prefix) for prefix in config.freeze)]
    return sum(math.prod(shapes[name]) for name in names)


def table(before: dict[str, float], runs: Sequence[Trained]) -> list[tuple[str, ...]]:
    """The head, then a line a figure: before, and each way's mean [least, most] of its seeds. Scores in percent."""
    of_way = {way: [run for run in runs if run.way == way] for way in WAYS}
    names = [*SHOWN, *(name for name in before if name.startswith("questions/") and name not in SHOWN)]
    lines = [("", "before", "whole tuning", "LoRA")]
    for name in names:
        cells = [spread([100 * run.scores[name] for run in of_way[way]], ".1f") for way in WAYS]
        lines.append((SHOWN.get(name, name.replace("questions/", "old: ")), f"{100 * before[name]:.1f}", *cells))
    lines.append(("trained parameters", "", *(f"{of_way[way][0].parameters:,}" for way in WAYS)))
    lines.append(("seconds of training", "", *(spread([run.seconds for run in of_way[way]], ".0f") for way in WAYS)))
    return lines


def spread(values: Sequence[float], form: str) -> str:
    """`40.1 [38.0, 42.3]`."""
    return f"{statistics.mean(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def write(
    folder: Path, settings: Settings, before: dict[str, float], runs: Sequence[Trained], lines: list[tuple[str, ...]]
) -> None:
    """table.md and table.json."""
    machine = describe_machine()
    commit = Path(settings.run, "commit")
    facts = {
        "settings": vars(settings),
        "commit_of_run": commit.read_text(encoding="utf-8").strip() if commit.is_file() else None,
        "machine": machine,
        "before": before,
        "runs": [vars(run) for run in runs],
    }
    files.write_whole(folder / "table.json", json.dumps(facts, indent=1))
    head = (
        f"{settings.rows} rows of seed {settings.rows_seed}, {settings.steps} steps, rates {settings.rates[0]:g} "
        f"(whole) and {settings.rates[1]:g} (LoRA), seeds {seeds(settings)}; percent of {settings.items} items of each "
        f"kind, mean [least, most] of the seeds; "
        f"{machine_sentence(machine)}."
    )
    files.write_whole(folder / "table.md", f"{head}\n\n{study_table.markdown(lines)}\n")


if __name__ == "__main__":
    main()
