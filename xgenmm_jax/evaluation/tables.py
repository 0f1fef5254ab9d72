"""Figures as text and as a table for the terminal."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text


def figure(metric: str, value: float) -> str:
    """A fraction in percent, CIDEr as it is: `"83.3 %"`, `"1.25"`."""
    return f"{value:.2f}" if metric.endswith("/cider") else f"{100 * value:.1f} %"


def metrics_table(metrics: Mapping[str, float], caption: str) -> Table:
    """A line for each metric, with a rule between groups; a group is what stands before the first slash."""
    table = Table(caption=caption)
    table.add_column("metric")
    table.add_column("value", justify="right")
    group = None
    for name, value in metrics.items():
        if group is not None and name.split("/")[0] != group:
            table.add_section()
        group = name.split("/")[0]
        table.add_row(Text(name), figure(name, value))  # as Text: brackets in a name are no markup
    return table
