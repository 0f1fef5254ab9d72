"""What a check found, as the page and the terminal show it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """One check.

    head, rows: a table of texts. faults: what is off and what to do, a line each. notes: what is worth knowing, or
    could not be looked at.
    """

    title: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def some(names: list[str]) -> str:
    """ "a, b, c and 4 more"."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
