"""What commands on data print: tables on stdout, a progress bar on stderr."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib

import rich.console
import rich.progress
from rich.table import Table
from rich.text import Text

from xgenmm_jax.data.index.counts import Counts, Spread

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Shows (what, done, of how many) on a terminal, one line for each `what`."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda what, done, total: None
        return
    bar = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}", markup=False),  # a name is no markup
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,
    )
    tasks: dict[str, rich.progress.TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    with bar:
        yield show


def size_in_words(size: int) -> str:
    """12345678 -> "12.3 MB"."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{size:,} bytes" if unit == 0 else f"{value:.3g} {UNITS[unit]}"


def print_rows(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """A table of names and values. Everything is printed as it is, never as markup."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console = rich.console.Console(highlight=False, markup=False)
    console.print(Text(title, "italic"), soft_wrap=True)
    console.print(table)


def print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """A table with a header."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    rich.console.Console(highlight=False, markup=False).print(table)


def rows_of_counts(counts: Counts) -> Iterator[tuple[str, str]]:
    """Bad records by reason, and how large the good ones are."""
    if counts.samples != counts.records - counts.bad.total():
        yield "samples", f"{counts.samples:,}, one for each text of a record"
    for reason, count in counts.bad.most_common():
        record, detail = counts.examples[reason]
        yield f"bad: {reason}", f"{count:,}, first {record}: {detail}"
    if not counts.bad:
        yield "bad", "0"
    if counts.dropped_images:
        yield "images left out of records", f"{counts.dropped_images:,}"
    yield from rows_of_spreads(counts.spreads)


def rows_of_spreads(spreads: Mapping[str, Spread]) -> Iterator[tuple[str, str]]:
    titles = {"tokens": "tokens a record (an image is one)"}
    for name, spread in spreads.items():
        if spread:
            yield titles.get(name, f"{name} a record"), spread_in_words(spread)


def spread_in_words(spread: Spread) -> str:
    """"median 21, 95 % up to 40, longest 77"."""
    return f"median {spread.quantile(0.5):,}, 95 % up to {spread.quantile(0.95):,}, longest {spread.longest:,}"
