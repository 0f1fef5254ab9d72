"""`xgenmm data pack SOURCE DST`: the records of a source in shards of this project's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from xgenmm_jax import hub
from xgenmm_jax.cli import data_tables, errors
from xgenmm_jax.cli.data_index import PROCESSES, print_indexed
from xgenmm_jax.cli.data_sources import SourceOptions, parse_with_reader, read_source
from xgenmm_jax.cli.options import Source
from xgenmm_jax.data.index.indexing import index_source
from xgenmm_jax.data.index.workers import Measuring
from xgenmm_jax.data.pack import BAD_FILE, SHARD_RECORDS, pack_source, packed_source
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.paths import user_path


@dataclass(frozen=True)
class Arguments(SourceOptions):
    """Writes the records of a source, as its reader makes them, into array_record files that are read at random.

    SOURCE is KIND:PATTERN (KIND: tars, parquet, json, folder, records, tfds) with --reader NAME, or FILE.py:NAME, a
    ShardedSource. Images stay the bytes that they are, and records keep all of their texts. Shards and records keep
    their order, so rows stay the same where no record is left out and no shard is cut. A killed command goes on where
    it was.
    """

    source: tyro.conf.Positional[str]
    """Such as 'tars:data/{0000..0999}.tar'."""
    folder: tyro.conf.Positional[str]
    """A new folder, on a disk."""
    shard_records: int = field(default=SHARD_RECORDS, kw_only=True)
    """Most records of a shard; one also ends at about 1 GB."""
    processes: int = field(default=PROCESSES, kw_only=True)
    """Shards that are packed at a time, each in a process."""
    tokenizer: Source | None = field(default=None, kw_only=True)
    """The SentencePiece model of the runs to come, with which what is packed is measured too."""
    chat: ChatStyle = field(default=ChatStyle(), kw_only=True)
    """How conversations are written, as in the runs' configs."""


def main(argv: Sequence[str]) -> int:
    """Prints what was packed; gives the exit code."""
    arguments, reader = parse_with_reader(Arguments, argv, "xgenmm data pack")
    for option, value in (("--shard-records", arguments.shard_records), ("--processes", arguments.processes)):
        if value < 1:
            raise ValueError(f"{option}: got {value}; give 1 or more.")
    source = read_source(arguments.source, arguments, reader)
    if not isinstance(source, ShardedSource):
        raise ValueError(f"data pack: '{arguments.source}' is an experiment; name a source of it, FILE.py:NAME.")
    tokenizer = None if arguments.tokenizer is None else hub.fetch(arguments.tokenizer, "--tokenizer", "tokenizer")
    measuring = None if tokenizer is None else Measuring(str(tokenizer), arguments.chat)
    if measuring is not None:
        measuring.measurer()  # what is mistyped is told before hours of work
    if "://" in arguments.folder:
        raise ValueError(f"data pack: '{arguments.folder}' is a URL; give a folder, which you then copy.")
    folder, processes = user_path(arguments.folder, "DST"), arguments.processes
    with errors.writing(folder), data_tables.progress_bar() as show:
        packed = pack_source(source, folder, processes, arguments.shard_records, show)
        indexed = index_source(packed_source(folder, arguments.name), measuring, processes, show)
    rows = [
        ("shards of the source", f"{packed.shards:,}, {packed.new:,} of them packed now"),
        ("shards written", f"{packed.parts:,}"),
        ("records", f"{packed.records:,}"),
        ("bytes", data_tables.size_in_words(packed.bytes)),
        *((f"left out: {reason}", f"{n:,}, first {first}") for reason, (n, first) in packed.bad.items()),
    ]
    if not packed.bad:
        rows.append(("left out", "0"))
    data_tables.print_rows(f"{arguments.source} in {folder}", rows)
    if packed.bad:
        print(f"Each record that was left out stands in '{folder / BAD_FILE}'.")
    print_indexed(indexed)
    return 0
