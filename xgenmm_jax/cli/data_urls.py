"""`xgenmm data urls SOURCE LIST`: the URLs of a source's images, for a program that fetches them."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from xgenmm_jax.cli import data_tables, errors
from xgenmm_jax.cli.data_sources import SourceOptions, parse_with_reader, read_source
from xgenmm_jax.cli.options import LocalPath
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.urls import list_urls


@dataclass(frozen=True)
class Arguments(SourceOptions):
    """Lists the URLs of the images that a reader asks for, each once with its SHA-256, in Parquet files.

    SOURCE is KIND:PATTERN with --reader NAME, or FILE.py:NAME, a ShardedSource. Nothing is fetched: img2dataset does
    that (docs/data.md), and `xgenmm data join` makes an index of what came back.
    """

    source: tyro.conf.Positional[str]
    """Such as 'parquet:data/*.parquet' with --reader obelics."""
    list: tyro.conf.Positional[LocalPath]
    """A new folder, on a disk."""


def main(argv: Sequence[str]) -> int:
    """Prints what was listed; gives the exit code."""
    arguments, reader = parse_with_reader(Arguments, argv, "xgenmm data urls")
    source = read_source(arguments.source, arguments, reader)
    if not isinstance(source, ShardedSource):
        raise ValueError(f"data urls: '{arguments.source}' is an experiment; name a source of it, FILE.py:NAME.")
    with errors.writing(arguments.list), data_tables.progress_bar() as show:
        listed = list_urls(source, arguments.list, show)
    rows = [
        ("records", f"{listed.records:,}"),
        ("records without a URL", f"{listed.without:,}"),
        ("URLs named", f"{listed.named:,}"),
        *((f"left out: {reason}", f"{count:,}") for reason, count in listed.left_out.items()),
        ("different URLs", f"{listed.urls:,}"),
        ("files", f"{listed.files:,}"),
    ]
    data_tables.print_rows(f"{arguments.source} in {arguments.list}", rows)
    return 0
