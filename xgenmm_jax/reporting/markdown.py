"""Markdown of cards: tables, and the front matter that the hub reads."""

from collections.abc import Iterator, Sequence
import json
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; what would break its lines or cells is escaped."""
    lines = ([one_line(str(cell)).replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def one_line(text: str) -> str:
    """The text with each run of white space as one space."""
    return " ".join(text.split())


def yaml_lines(value: Any, indent: str = "") -> Iterator[str]:
    """Block style; strings and numbers as JSON, which YAML contains."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        lead = f"{indent}{key}:" if isinstance(value, dict) else f"{indent}-"
        if not isinstance(item, dict | list):
            yield f"{lead} {json.dumps(item)}"
            continue
        inner = list(yaml_lines(item, f"{indent}  "))
        if isinstance(value, list):  # the first line of an entry stands behind its dash
            inner[0] = f"{lead} {inner[0].lstrip()}"
            yield from inner
        else:
            yield lead
            yield from inner
