"""The sections as a page and for the terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from xgenmm_jax.reporting.page import render_template
from xgenmm_jax.verifying.section import Section

NAME_WIDTH = 36
"""Columns of a tensor's name, at least: longer ones take several lines."""


def html(source: str, sections: Sequence[Section]) -> str:
    """One page: faults first, then each section's notes and its whole table."""
    faults = [fault for section in sections for fault in section.faults]
    return render_template(
        "xgenmm_jax.verifying", "verify.html", refresh_s=0, source=source, faults=faults, sections=sections
    )


def for_terminal(section: Section) -> Table:
    """Its whole table."""
    table = Table(title=section.title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1), pad_edge=False)
    for number, name in enumerate(section.head):
        is_first = number == 0
        width = NAME_WIDTH if is_first and section.head[0] == "tensor" else None
        table.add_column(name, justify="left" if is_first else "right", overflow="fold", min_width=width)
    for row in section.rows:
        table.add_row(*map(Text, row))
    return table
