"""`xgenmm train FILE[:RUN] [overrides] [--workdir DIR]`: trains what an experiment file gives."""

from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import sys
from typing import Annotated

import jax
import tyro

from xgenmm_jax import files
from xgenmm_jax.cli import compilation_cache, errors, train_help
from xgenmm_jax.cli.experiment_files import load_experiment, needed_help, take_arguments
from xgenmm_jax.cli.options import parse_overrides, refuse_file, take_option
from xgenmm_jax.paths import local_path, run_path
from xgenmm_jax.planning import memory_check, presets
from xgenmm_jax.planning.presets import Preset
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.hosts import distributed
from xgenmm_jax.training.hosts.distributed import Distributed, on_first_host
from xgenmm_jax.training.runs import checkpoint_files

USAGE = (
    "usage: xgenmm train FILE[:RUN] [overrides] [--workdir DIR]\n"
    "xgenmm train FILE --help lists the options that are used most, --help-all every one.\n"
    "--for v5e:16x16 (2xv5e:16x16, h200, h100:8) sets what fits these chips; your own options change it.\n"
    "RUN is a function of the file, config by default: xgenmm train experiments/ablations/connector.py:mlp\n"
    "Where it takes a stage, --at nano (or micro) gives it the stage of that size.\n"
    "Several hosts: the same command on each. A TPU pod is found; elsewhere add --distributed.coordinator HOST:PORT\n"
    "--distributed.processes N --distributed.process I, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and\n"
    "JAX_PROCESS_ID. --distributed.processes 1: this host alone, also on a TPU."
)

OTHER_NAMES = {
    "--learning-rate": "--optimizer.peak-lr",
    "--lr": "--optimizer.peak-lr",
    "--peak-lr": "--optimizer.peak-lr",
    "--batch-size": "--data.batch-rows",
    "--max-steps": "--steps",
    "--output-dir": "--workdir",
}
"""What other programs call some options."""


@dataclass(frozen=True)
class Options:
    """Trains, or goes on training, what an experiment file gives. Every option but the first ones overrides a field of
    its TrainConfig."""

    workdir: str | None
    """The run folder. By default runs/ and the name of the run. A folder with checkpoints is continued."""
    at: str | None
    """nano or micro: an ablation's arm on the stages of that size instead of the paper's."""
    for_: Annotated[str | None, tyro.conf.arg(name="for")]
    """Chips whose settings are taken, v5e:16x16, 2xv5e:16x16, h200 or h100:8: mesh, micro-batches, remat, rows, steps.
    none: the experiment's own. Other options change them."""
    ignore_estimate: bool
    """Tries a run that cannot fit by the estimate of its memory."""
    distributed: Distributed
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]


def main(argv: Sequence[str]) -> int:
    """Trains, or goes on training; gives the exit code (`cli/main.py` lists them)."""
    argv = list(argv)
    if not argv or argv[0].startswith("-"):
        is_help = argv[:1] in (["-h"], ["--help"], ["--help-all"])
        print(USAGE, file=sys.stdout if is_help else sys.stderr)
        return 0 if is_help else 2
    path, *rest = argv
    experiment = local_path(path, "experiment")
    # Options of the command itself, taken off before tyro sees the config's.
    rest, workdir = take_option(rest, "--workdir")
    rest, hosts = take_hosts(rest)
    rest, at = take_option(rest, "--at")
    rest, chips = take_option(rest, "--for")
    rest, given = take_arguments(experiment, rest)
    if {"-h", "--help", "--help-all"} & set(rest) and (needed := needed_help(experiment, given)):
        print(needed)
        return 0
    base = config = load_experiment(experiment, at, given)
    chosen = presets.chosen(base, chips)
    if chosen is not None:
        config = chosen.config
    if {"-h", "--help"} & set(rest):
        print(train_help.text(config, path))
        return 0
    # tyro knows the options that are taken off above too, to list and to suggest them.
    options = Options(None, None, None, False, Distributed(), config)
    rest = ["--help" if word == "--help-all" else word for word in rest]
    typed = parse_overrides(Options, options, rest, f"xgenmm train {path}", OTHER_NAMES, "--help-all")
    config = typed.config
    # Where the run lies is checked before JAX is told of the other hosts.
    folder = run_path(Path("runs") / config.name if workdir is None else workdir, "--workdir")
    checkpoint_files.check_place(folder, "--workdir")
    files.check_bucket(folder, "--workdir")
    refuse_file(folder)
    distributed.start(hosts)
    compilation_cache.leave_to_run()

    from xgenmm_jax.training.loop import train

    on_first_host(lambda: _tell(config, base, chosen, typed.ignore_estimate))
    with errors.writing(folder):
        result = train(config, folder)
    if result.signal is not None:
        print(f"xgenmm train: saved step {result.step} in '{folder}'; the same command continues.", file=sys.stderr)
        return 128 + result.signal
    return 0


def _tell(config: TrainConfig, base: TrainConfig, chosen: Preset | None, is_forced: bool) -> None:
    """Says what `--for` set and whether the run should fit its devices. Raises ValueError where it cannot."""
    devices, lines = jax.devices(), []
    if chosen is not None:
        memory_check.check_count(chosen, config, devices)
        lines += presets.lines(chosen, base)
    lines.append(memory_check.sentence(config, base, chosen, devices, is_forced))
    for line in filter(None, lines):
        print(f"xgenmm train: {line}.", file=sys.stderr, flush=True)


def take_hosts(argv: list[str]) -> tuple[list[str], Distributed]:
    """The arguments without `--distributed.*`, and what they say; what they do not say the environment does.

    Raises ValueError where they say too little, or a number is none.
    """
    argv, coordinator = take_option(argv, "--distributed.coordinator")
    argv, processes = take_option(argv, "--distributed.processes")
    argv, process = take_option(argv, "--distributed.process")
    given = {distributed.COORDINATOR: coordinator, distributed.PROCESSES: processes, distributed.PROCESS: process}
    variables = {name: value for name, value in given.items() if value is not None}
    return argv, distributed.from_environment(variables or os.environ)
