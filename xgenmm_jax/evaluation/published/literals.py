"""Lists written as Python's literals in the cells of published tables; nothing is evaluated."""

import ast
from typing import Any

MOST_CHARACTERS = 64 << 20
"""Of a literal: lists of base64 pictures are long."""


def texts_of(cell: str, what: str) -> list[str]:
    """The list of texts in a cell, `"['a', 'b']"`; numbers in it as Python writes them.

    what: names the cell in the error. Raises ValueError where it is no list of texts and numbers.
    """
    value = literal_of(cell)
    if not isinstance(value, list | tuple) or not all(isinstance(part, str | int | float) for part in value):
        raise ValueError(f"{what}: got {cell[:60]!r}; wanted a list of texts, \"['a', 'b']\".")
    return [part if isinstance(part, str) else repr(part) for part in value]


def literal_of(cell: str) -> Any:
    """The literal in a cell, None where it is none or too long or too deep."""
    if len(cell) > MOST_CHARACTERS:
        return None
    try:
        return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
