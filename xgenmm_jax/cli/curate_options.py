"""What all commands of `xgenmm curate` share: options, the run of Beam, and what is printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import shlex
from typing import Any

import tyro

from xgenmm_jax.cli import data_tables, errors
from xgenmm_jax.cli.data_index import PROCESSES
from xgenmm_jax.cli.data_sources import SourceOptions, is_python, read_source
from xgenmm_jax.cli.errors import nearest
from xgenmm_jax.curation import card, charts, pipeline, samples
from xgenmm_jax.curation.destination import LEFT_OUT_FILE
from xgenmm_jax.curation.faces import Faces
from xgenmm_jax.curation.images import Images
from xgenmm_jax.curation.makers import Maker
from xgenmm_jax.curation.shards import TRIES, Options
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.records import ProjectRecords
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.paths import local_path, user_path

SHARDS_FAILED = 3
"""Exit code where shards of the source failed whole and were left out."""


@dataclass(frozen=True, kw_only=True)
class CurateOptions(SourceOptions):
    """Options of each command of `xgenmm curate`."""

    processes: int = PROCESSES
    """Shards that are made at a time on this machine, each in a process of Beam's direct runner."""
    runner: str = pipeline.DIRECT
    """Beam's runner. Its further options stand at the end, behind a bare --: -- --flink_master=HOST:8081"""
    no_images: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave the images' files out of the rows, as the released sets do; `url` names them."""
    license_field: str = "license"
    """The source's column that says an image's licence."""
    faces: Faces = "source"
    """Where face_bboxes come from: the source's own column, a cascade of scikit-image's, or none."""
    deduplicate: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave out an image that looks like an earlier one, by a hash of 16 x 16 cells."""
    samples_seed: int = samples.SEED
    """Of the draw of the page of samples."""


def split_beam_options(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own arguments, and those behind a bare "--", which are Beam's."""
    argv = list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def source_of(text: str, options: SourceOptions, reader: Reader | None) -> ShardedSource:
    """The source of images: without a reader each record's image, with its alt text where it has one.

    Raises ValueError where it names none.
    """
    if reader is None and not is_python(text):
        reader = ProjectRecords() if text.startswith("records:") else Images()
    source = read_source(text, options, reader)
    if not isinstance(source, ShardedSource):
        raise ValueError(f"curate: '{text}' is an experiment; name a source of it, FILE.py:NAME.")
    return source


def of_file(text: str, option: str) -> tuple[Any, Path]:
    """What FILE.py:NAME is, and the file. option: what errors call it.

    Raises ValueError where there is no such thing.
    """
    from xgenmm_jax.cli.experiment_files import import_experiment

    file, colon, name = text.rpartition(":")
    path = local_path(file if colon else name, option)
    if not colon or path.suffix != ".py":
        raise ValueError(f"{option}: got '{text}', wanted FILE.py:NAME.")
    module = import_experiment(path, option)
    if not hasattr(module, name):
        names = [one for one in vars(module) if not one.startswith("_")]
        raise ValueError(f"{option}: '{path}' has no '{name}'; {nearest(name, names)}.")
    return getattr(module, name), path


def typed(command: str, argv: Sequence[str]) -> str:
    """The command as it was typed; of paths their last part, since a card is published."""
    words = []
    for word in argv:
        lead, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
        kind, colon, path = value.partition(":")
        words.append(lead + sign + (f"{kind}:{_last(path)}" if colon and "/" in path else _last(value)))
    return f"xgenmm curate {command} {shlex.join(words)}"


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] if "/" in path else path


def run(
    maker: Maker,
    source: ShardedSource,
    destination: str,
    options: CurateOptions,
    beam_options: Sequence[str],
    argv: Sequence[str],
) -> int:
    """Makes the rows, the card and the page of samples; prints what is there. Gives the exit code."""
    if options.processes < 1:
        raise ValueError(f"--processes: got {options.processes}; give 1 or more.")
    if "://" in destination:
        raise ValueError(f"curate: '{destination}' is a URL; give a folder that all workers share, and copy it then.")
    folder = user_path(destination, "DST")
    of_rows = Options(not options.no_images, options.license_field, options.faces, options.deduplicate)
    pipeline.check_beam(options.runner, beam_options)
    charts.check()
    run_tasks = pipeline.with_beam(options.processes, options.runner, beam_options)
    with errors.writing(folder), data_tables.progress_bar() as show:
        curated = pipeline.curate(source, maker, folder, of_rows, run_tasks, show)
        page = samples.write(folder, curated, source, maker, options.samples_seed)
        readme = card.write(folder, curated, maker, of_rows, typed(maker.command, argv))
    _print(maker, folder, curated, (readme, page))
    return SHARDS_FAILED if curated.failed else 0


def _print(maker: Maker, folder: Any, curated: Any, pages: Sequence[Any]) -> None:
    rows = [
        ("shards of the source", f"{curated.shards:,}, {curated.new:,} of them made now"),
        ("images", f"{sum(note.images for note in curated.notes):,}"),
        ("rows", f"{curated.rows:,}"),
        ("bytes", data_tables.size_in_words(sum(note.bytes for note in curated.notes))),
        *((f"left out: {reason}", f"{n:,}, first {first}") for reason, (n, first) in curated.left_out().items()),
        *(("failed", f"{one.shard}: {one.error}") for one in curated.failed),
        *(("see", str(page)) for page in pages),
    ]
    data_tables.print_rows(f"{maker.command} in {folder}", rows)
    if curated.left_out():
        print(f"Each image that was left out stands in '{folder / LEFT_OUT_FILE}'.")
    if curated.failed:
        print(f"Failed shards were tried {TRIES} times and are left out; the same command tries them again.")
