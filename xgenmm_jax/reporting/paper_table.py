"""A filled table as Markdown, as a page, as JSON, and for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from xgenmm_jax.evaluation.table_rows import Cell, Filled, Row
from xgenmm_jax.reporting.curves import Point, curve
from xgenmm_jax.reporting.page import render_template

OPENNESS = ("weights", "data", "code")
NONE = "-"


def figure(cell: Cell) -> str:
    """"47.1 ±1.3 [2]": the value, its standard error, its footnotes."""
    value = NONE if cell.value is None else f"{cell.value:.1f}"
    error = "" if cell.stderr is None else f" ±{cell.stderr:.1f}"
    marks = "".join(f" [{mark}]" for mark in cell.marks)
    return value + error + marks


def head(filled: Filled) -> list[str]:
    """The names of all columns."""
    table = filled.table
    names = ["model"]
    names += OPENNESS if table.has_openness else ()
    names += [column.title for column in table.columns]
    return names + (["Average"] if table.has_average else [])


def cells(filled: Filled, row: Row) -> list[str]:
    """A row's texts, one for each of `head`."""
    texts = [row.model]
    if filled.table.has_openness:
        marks = {True: "yes", False: "no"}
        texts += ["?"] * 3 if row.openness is None else [marks[one] for one in row.openness]
    texts += [figure(cell) for cell in row.cells]
    return texts + ([figure(row.average)] if row.average is not None else [])


def for_terminal(filled: Filled) -> Table:
    """Models as columns and benchmarks as lines: twelve benchmarks side by side do not fit a terminal."""
    table = Table(title=Text(f"{filled.table.title} ({filled.caption})"), title_justify="left")
    names = head(filled)
    columns = [cells(filled, row) for row in filled.rows]
    table.add_column("", no_wrap=True)
    for row in filled.rows:
        table.add_column(Text(row.model, "bold" if row.is_ours else ""), justify="right", overflow="fold")
    for number, name in enumerate(names[1:], start=1):
        table.add_row(Text(name), *(Text(column[number]) for column in columns))
    return table


def footnotes(filled: Filled) -> list[str]:
    """"[1] ...", a line each."""
    return [f"[{number}] {note}" for number, note in enumerate(filled.footnotes, start=1)]


def markdown(filled: Filled) -> str:
    """A table of Markdown with its caption above and its footnotes below."""
    names = head(filled)
    lines = [f"**{filled.table.title}** ({_escaped(filled.caption)})", "", _line(names)]
    lines.append("|" + "|".join("---" if number == 0 else "---:" for number in range(len(names))) + "|")
    for row in filled.rows:
        texts = cells(filled, row)
        lines.append(_line([f"**{texts[0]}**" if row.is_ours else texts[0], *texts[1:]]))
    lines += ["", *(f"{line}  " for line in map(_escaped, footnotes(filled)))]
    return "\n".join(lines) + "\n"


def to_json(filled: Filled) -> dict[str, Any]:
    """Values, standard errors and footnotes of all cells."""

    def cell_json(cell: Cell) -> dict[str, Any]:
        notes = [filled.footnotes[mark - 1] for mark in cell.marks]
        return {"value": cell.value, "stderr": cell.stderr, "notes": notes}

    return {
        "table": filled.table.name,
        "title": filled.table.title,
        "rules": filled.caption,
        "columns": [column.title for column in filled.table.columns],
        "rows": [
            {
                "model": row.model,
                "ours": row.is_ours,
                "open": None if row.openness is None else dict(zip(OPENNESS, row.openness, strict=True)),
                "scores": [cell_json(cell) for cell in row.cells],
                "average": None if row.average is None else cell_json(row.average),
            }
            for row in filled.rows
        ],
        "notes": list(filled.footnotes),
    }


def html(filled: Sequence[Filled], curves: Mapping[str, Sequence[Point]] | None = None) -> str:
    """A page of tables, with few-shot curves under them. curves: by title, scores against the number of shots."""
    shown = [
        {
            "title": one.table.title, "caption": one.caption, "head": head(one), "notes": footnotes(one),
            "rows": [{"ours": row.is_ours, "cells": cells(one, row)} for row in one.rows],
        }
        for one in filled
    ]  # fmt: skip
    drawn = [
        {"title": title, "svg": curve(points, max(x for x, _ in points), title, "demonstrations", "score")}
        for title, points in (curves or {}).items()
    ]
    return render_template("xgenmm_jax.reporting", "paper_table.html", refresh_s=0, tables=shown, curves=drawn)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(text) for text in texts) + " |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
