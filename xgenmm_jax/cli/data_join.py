"""`xgenmm data join TARS DST`: an index of images that were fetched by URL."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from xgenmm_jax.cli import data_tables, errors
from xgenmm_jax.cli.options import LocalPath, parse
from xgenmm_jax.data.joined import join


@dataclass(frozen=True)
class Arguments:
    """Makes an index of img2dataset's tars by the URLs of their images.

    A source whose records name URLs takes the folder as its folder of images: --images DST, or
    Parquet(pattern, images="DST"). It is read so while it is packed; the tars must stay where they are until then.
    """

    tars: tyro.conf.Positional[str]
    """Such as 'fetched/*.tar'."""
    folder: tyro.conf.Positional[LocalPath]
    """A new folder, on a disk."""


def main(argv: Sequence[str]) -> int:
    """Prints what was found; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm data join")
    with errors.writing(arguments.folder), data_tables.progress_bar() as show:
        joined = join(arguments.tars, arguments.folder, show)
    rows = [
        ("tars", f"{joined.tars:,}"),
        ("images", f"{joined.images:,}"),
        *((f"left out: {reason}", f"{count:,}") for reason, count in joined.left_out.items()),
    ]
    data_tables.print_rows(f"{arguments.tars} in {arguments.folder}", rows)
    return 0
