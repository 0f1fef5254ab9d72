"""`xgenmm data index SOURCE... | FILE.py[:RUN] [overrides]`: manifests and sizes, before a run needs them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
import os
import pathlib
from typing import TYPE_CHECKING, Annotated

import tyro

from xgenmm_jax import hub
from xgenmm_jax.cli import data_tables
from xgenmm_jax.cli.data_sources import SourceOptions, is_python, load_named, parse_with_reader, read_source
from xgenmm_jax.cli.experiment_files import take_arguments
from xgenmm_jax.cli.options import Source, checked_path, parse_overrides, take_option
from xgenmm_jax.data.index.indexing import Indexed, index_experiment, index_source
from xgenmm_jax.data.index.workers import Measuring
from xgenmm_jax.data.sharded import ShardedSource, check_own_indexes
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.paths import Path, local_path, run_path

if TYPE_CHECKING:
    from xgenmm_jax.training.config import TrainConfig

PROCESSES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
"""As many as there are cores for this process."""


@dataclass(frozen=True)
class Arguments(SourceOptions):
    """Makes the index of sources, or of what a run's steps reach of its sources.

    SOURCE is KIND:PATTERN (KIND: tars, parquet, json, folder, records, tfds) with --reader NAME, or FILE.py:NAME, a
    ShardedSource. An experiment, FILE.py or FILE.py:RUN, stands first and takes overrides and --workdir as
    `xgenmm train` does; its tokenizer and chat style measure. What is there already stays, so a killed command goes on;
    what is outdated is told and made again.
    """

    sources: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE [SOURCE ...]")]]
    """Sources, or one experiment."""
    tokenizer: Source | None = field(default=None, kw_only=True)
    """The SentencePiece model or tokenizer.json of the runs to come. Without it the manifest alone is made."""
    chat: ChatStyle = field(default=ChatStyle(), kw_only=True)
    """How conversations are written, as in the runs' configs."""
    processes: int = field(default=PROCESSES, kw_only=True)
    """Shards that are read at a time, each in a process."""
    again: bool = field(default=False, kw_only=True)
    """Make all of it anew, though nothing differs: files changed and kept their sizes."""


def main(argv: Sequence[str]) -> int:
    """Prints what is in each index; gives the exit code."""
    if argv and is_python(argv[0]) and not {"-h", "--help"} & set(argv):
        rest, at = take_option(list(argv[1:]), "--at")
        rest, given = take_arguments(local_path(argv[0], "source"), rest)
        named = load_named(argv[0], at, given)
        if not isinstance(named, ShardedSource):
            return _experiment(argv[0], named, rest)
    arguments, reader = parse_with_reader(Arguments, argv, "xgenmm data index")
    _check_processes(arguments.processes)
    sources = [read_source(text, arguments, reader) for text in arguments.sources]
    if not sources:
        raise ValueError("data index: got no source; give one, or an experiment.")
    for text, source in zip(arguments.sources, sources, strict=True):
        if not isinstance(source, ShardedSource):
            raise ValueError(f"data index: '{text}' is an experiment; give it first and alone, options behind it.")
    if arguments.index is not None and len(sources) > 1:
        raise ValueError("--index: one folder is given for several sources; index them one by one.")
    check_own_indexes(sources)
    tokenizer = None if arguments.tokenizer is None else hub.fetch(arguments.tokenizer, "--tokenizer", "tokenizer")
    measuring = None if tokenizer is None else Measuring(str(tokenizer), arguments.chat)
    for source in sources:
        with data_tables.progress_bar() as show:
            indexed = index_source(source, measuring, arguments.processes, show, arguments.again)
        print_indexed(indexed)
    if measuring is None:
        print("No --tokenizer: manifests alone are made, and sizes when a run first needs them.")
    return 0


def _experiment(name: str, config: "TrainConfig", rest: list[str]) -> int:
    from xgenmm_jax.data.rows.config import DataConfig
    from xgenmm_jax.training.config import TrainConfig

    # Options of the command itself, taken off before tyro sees the config's.
    again, rest = "--again" in rest, [word for word in rest if word != "--again"]
    rest, processes = take_option(rest, "--processes")
    rest, workdir = take_option(rest, "--workdir")
    count = PROCESSES if processes is None else int(processes) if processes.isdecimal() else 0
    _check_processes(count, processes)
    list_all = f"xgenmm train {name} --help-all"
    config = parse_overrides(TrainConfig, config, rest, f"xgenmm data index {name}", help_option=list_all)
    if not isinstance(config.data, DataConfig):
        raise ValueError(f"data index: '{name}' trains on {type(config.data).__name__}, which has no sources.")
    folder = str(pathlib.Path("runs") / config.name) if workdir is None else workdir
    config = _as_it_goes_on(config, checked_path(folder, "--workdir", run_path))
    held_out, validation = config.held_out, []
    samples = held_out.samples if held_out.every_steps and not held_out.mixture else 0
    with data_tables.progress_bar() as show:
        indexed = index_experiment(config.data, config.seed, config.steps, count, show, again, samples)
        # A held-out mixture of its own is small: all of it.
        measuring = Measuring(config.data.tokenizer, config.data.chat)
        for source in (source for source, _ in held_out.mixture if held_out.every_steps):
            if isinstance(source, ShardedSource):
                validation.append(index_source(source, measuring, count, show, again))
    for one in (*indexed.sources, *validation):
        print_indexed(one)
    if indexed.sources:
        rows = config.steps * config.data.batch_rows
        print(f"{config.steps:,} steps read {rows:,} rows: about {indexed.windows:,} windows, with some to spare.")
    if indexed.without_index:
        names = ", ".join(sorted(set(indexed.without_index)))
        print(f"Without an index, and read by every host as they are: {names}.")
    return 0


def _as_it_goes_on(config: "TrainConfig", folder: Path) -> "TrainConfig":
    """The config with the phases of a run that there is: what it has drawn before its weights changed stays drawn."""
    from xgenmm_jax.data.rows.order import State
    from xgenmm_jax.training.runs.checkpoints import newest, progress_of, saved_steps
    from xgenmm_jax.training.runs.mixture_changes import phases_of_run, with_phases
    from xgenmm_jax.training.runs.run_folder import CONFIG_FILE

    before = phases_of_run(folder / CONFIG_FILE)
    if not before:
        return config
    return with_phases(config, before, progress_of(newest(folder)).data if saved_steps(folder) else State())


def _check_processes(count: int, typed: str | None = None) -> None:
    if count < 1:
        raise ValueError(f"--processes: got {count if typed is None else typed!r}; give 1 or more.")


def print_indexed(indexed: Indexed) -> None:
    """A table of what an index holds."""
    if indexed.outdated is not None:
        print(f"{indexed.name}: the index is made again: {indexed.outdated}")
    rows = [
        ("shards", f"{indexed.shards:,}"),
        ("records", f"{indexed.records:,}"),
        ("bytes", data_tables.size_in_words(indexed.bytes)),
        *((f"left out: {reason}", f"{count:,}") for reason, count in indexed.refused.items()),
    ]
    if indexed.measured:
        rows.append(("measured", f"{indexed.measured:,} shards with {indexed.counts.records:,} records"))
        rows.append(("measured now", f"{indexed.new:,} shards"))
        rows += data_tables.rows_of_counts(indexed.counts)
    data_tables.print_rows(f"{indexed.name}: {indexed.folder}", rows)
