"""What the benchmarks print."""

from collections.abc import Sequence
import sys

import rich.console
import rich.table

LOG_WIDTH = 200
"""Columns of a file or a pipe, which hold any of the tables; rich takes 80 and cuts names and digits."""
console = rich.console.Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else LOG_WIDTH)


def show(text: str) -> None:
    console.print(text, markup=False)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column is words, the others are numbers."""
    table = rich.table.Table(title=title, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
