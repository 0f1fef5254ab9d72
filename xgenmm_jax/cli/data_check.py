"""`xgenmm data check SOURCE`: fields, counts, ten records, and bad ones by reason. Nothing is written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import tyro

from xgenmm_jax import hub
from xgenmm_jax.cli import data_tables
from xgenmm_jax.cli.data_sources import READERS, SourceOptions, is_python, parse_with_reader, read_source, read_storage
from xgenmm_jax.cli.options import Source
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.index.checking import SHOWN, Checked, check
from xgenmm_jax.data.index.measure import Measurer
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Arguments(SourceOptions):
    """Reads the first records of a source and says what they hold. Nothing is written.

    SOURCE is KIND:PATTERN (KIND: tars, parquet, json, folder, records, tfds), or FILE.py:NAME, a ShardedSource. With
    --reader NAME its records are made and their images decoded, and bad ones are counted by reason; without, fields
    are shown, and which readers would read them.
    """

    source: tyro.conf.Positional[str]
    """Such as 'tars:gs://bucket/mine/{0000..0999}.tar'."""
    records: int = field(default=1000, kw_only=True)
    """How many are read, from the first on."""
    tokenizer: Source | None = field(default=None, kw_only=True)
    """A SentencePiece model or tokenizer.json, with which records are tokenized and counted."""
    chat: ChatStyle = field(default=ChatStyle(), kw_only=True)
    """How conversations are written, for the tokenizer."""


def main(argv: Sequence[str]) -> int:
    """Prints what was found; gives the exit code."""
    arguments, reader = parse_with_reader(Arguments, argv, "xgenmm data check")
    if arguments.records < 1:
        raise ValueError(f"--records: got {arguments.records}; give 1 or more.")
    source = None
    if is_python(arguments.source) or reader is not None:
        source = read_source(arguments.source, arguments, reader)
        if not isinstance(source, ShardedSource):
            raise ValueError(f"data check: '{arguments.source}' is an experiment; name a source of it, FILE.py:NAME.")
    storage = read_storage(arguments.source, arguments) if source is None else source.storage
    reader = None if source is None else source.reader
    if arguments.tokenizer is not None and reader is None:
        raise ValueError("--tokenizer: without a reader there are no records to tokenize; give --reader NAME too.")
    tokenizer = None if arguments.tokenizer is None else hub.fetch(arguments.tokenizer, "--tokenizer", "tokenizer")
    measurer = None if tokenizer is None else Measurer(Tokenizer.load(tokenizer), arguments.chat)
    candidates = [kind() for kind in READERS.values()]
    with data_tables.progress_bar() as show:
        checked = check(storage, arguments.records, reader, measurer, candidates, show)
    data_tables.print_rows(arguments.source, [*_summary(checked), *_index(source)])
    _print_fields(checked)
    if checked.bad:
        rows = [(reason, f"{n:,}", cause, checked.examples[reason, cause]) for (reason, cause), n in _worst(checked)]
        data_tables.print_table(("bad", "records", "what is wrong", "the first"), rows)
        if len(checked.bad) > SHOWN:
            print(f"and {len(checked.bad) - SHOWN:,} more causes")
    if reader is None:
        _print_readers(checked)
    return 0


def _summary(checked: Checked) -> Iterator[tuple[str, str]]:
    yield "shards", f"{checked.shards:,}"
    yield "bytes", data_tables.size_in_words(checked.bytes)
    where = "" if checked.walked == checked.shards else f" in the first {checked.walked:,} shards"
    yield "records", f"{checked.walked_records:,}{where}"
    for reason, count in checked.refused.items():
        yield f"left out: {reason}", f"{count:,}{where}"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in checked.kinds.most_common())
    yield "read", f"{checked.read:,}{': ' if kinds else ''}{kinds}"
    yield "bad", f"{checked.bad.total():,}"
    yield from data_tables.rows_of_spreads(checked.spreads)


def _index(source: ShardedSource | None) -> Iterator[tuple[str, str]]:
    """What there is of an index."""
    if source is None:
        return
    index = source.source_index()
    try:
        manifest = index.manifest()
    except SourceError as error:
        yield "index", str(error)
        return
    if manifest is None:
        yield "index", "none yet: xgenmm data index makes it"
    else:
        records, measured = sum(shard.records for shard in manifest.shards), int(index.measured().sum())
        yield "index", f"{records:,} records, {measured:,} of {len(manifest.shards):,} shards measured"


def _print_fields(checked: Checked) -> None:
    """The fields with their types, and a column of values for each record that is shown."""
    rows = []
    for name, types in sorted(checked.fields.items()):
        kinds = ", ".join(f"{kind} ({count:,})" if len(types) > 1 else kind for kind, count in types.most_common())
        rows.append((name, f"{types.total():,}", kinds))
    data_tables.print_table(("field", "records", "type"), rows)
    values = []
    for shown in checked.shown:
        names = [shown.key, *[""] * (len(shown.values) - 1)]
        values += [(name, *item) for name, item in zip(names, shown.values.items(), strict=True)]
    data_tables.print_table(("record", "field", "value"), values)


def _print_readers(checked: Checked) -> None:
    able = {label: count for label, count in checked.readable.items() if count}
    if able:
        texts = [f"--reader {label} reads {count} of {checked.tried}" for label, count in able.items()]
        print(f"Readers: {', '.join(texts)}")
    else:
        print(f"No reader reads them with its defaults ({', '.join(READERS)}); name its fields: --reader NAME --help.")


def _worst(checked: Checked) -> list[tuple[tuple[str, str], int]]:
    return checked.bad.most_common(SHOWN)
