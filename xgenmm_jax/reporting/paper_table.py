"""A filled table as Markdown, as a page, as JSON, and for the terminal."""

from collections.abc import Mapping, Sequence
import re
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from xgenmm_jax.evaluation.table_rows import Cell, Filled, ModelRow
from xgenmm_jax.reporting.curves import Point, curve
from xgenmm_jax.reporting.page import render_template

OPENNESS = ("weights", "data", "code")
NONE = "-"
MOST_HEADING = 9
"""Characters of a line of a column's heading in the terminal, unless a word is longer."""


def figure(cell: Cell) -> str:
    """ "47.1 ±1.3 [2]": the value, its standard error, its footnotes."""
    value, error = numbers(cell)
    return " ".join(filter(None, (value, error))) + _marks(cell.marks)


def numbers(cell: Cell) -> tuple[str, str]:
    """("47.1", "±1.3"); the error is "" where there is none."""
    value = NONE if cell.value is None else f"{cell.value:.1f}"
    return value, "" if cell.stderr is None else f"±{cell.stderr:.1f}"


def _marks(marks: Sequence[int]) -> str:
    return "".join(f" [{mark}]" for mark in marks)


def head(filled: Filled) -> list[str]:
    """The names of all columns."""
    table = filled.table
    names = ["model"]
    names += OPENNESS if table.has_openness else ()
    names += [column.title for column in table.columns]
    return names + (["Average"] if table.has_average else [])


def cells(filled: Filled, row: ModelRow) -> list[str]:
    """A row's texts, one for each of `head`."""
    texts = [row.model + _marks(row.marks), *(openness(row) if filled.table.has_openness else ())]
    texts += [figure(cell) for cell in row.cells]
    return texts + ([figure(row.average)] if row.average is not None else [])


def openness(row: ModelRow) -> list[str]:
    """Whether weights, data and code are public, a word for each of OPENNESS."""
    words = {True: "yes", False: "no"}
    return ["?"] * len(OPENNESS) if row.openness is None else [words[one] for one in row.openness]


def for_terminal(filled: Filled) -> Table:
    """Models as columns and benchmarks as lines: twelve benchmarks side by side do not fit a terminal."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    names = head(filled)
    columns = [cells(filled, row) for row in filled.rows]
    table.add_column("", no_wrap=True)
    for row, column in zip(filled.rows, columns, strict=True):
        style = "bold" if row.is_ours else ""
        table.add_column(Text(in_lines(column[0]), style), justify="right", overflow="fold")
    for number, name in enumerate(names[1:], start=1):
        table.add_row(Text(name), *(Text(column[number]) for column in columns))
    return table


def in_lines(name: str) -> str:
    """A name over several lines, broken behind its signs: "VILA-1.5-13B" -> "VILA-\n1.5-13B"."""
    lines = [""]
    for part in re.findall(r"[^-/_ ]*[-/_ ]*", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > MOST_HEADING:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def title(filled: Filled) -> str:
    """ "Table 1: single-image benchmarks (profile paper, careful)"."""
    return f"{filled.table.title} ({filled.caption})"


def footnotes(filled: Filled) -> list[str]:
    """ "[1] ...", a line each."""
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

    def notes(marks: Sequence[int]) -> list[str]:
        return [filled.footnotes[mark - 1] for mark in marks]

    def cell_json(cell: Cell) -> dict[str, Any]:
        return {"value": cell.value, "stderr": cell.stderr, "notes": notes(cell.marks)}

    return {
        "table": filled.table.name,
        "title": filled.table.title,
        "rules": filled.caption,
        "columns": [column.title for column in filled.table.columns],
        "rows": [
            {
                "model": row.model,
                "ours": row.is_ours,
                "notes": notes(row.marks),
                "open": None if row.openness is None else dict(zip(OPENNESS, row.openness, strict=True)),
                "scores": [cell_json(cell) for cell in row.cells],
                "average": None if row.average is None else cell_json(row.average),
            }
            for row in filled.rows
        ],
        "notes": list(filled.footnotes),
    }


def html(
    filled: Sequence[Filled],
    curves: Mapping[str, Sequence[Point]] | None = None,
    token_curves: Mapping[str, Sequence[Point]] | None = None,
) -> str:
    """A page of tables, with few-shot curves under them.

    curves: by title, scores against the number of shots. token_curves: against billions of tokens of training.
    """
    shown = [
        {
            "title": one.table.title, "caption": one.caption, "head": head(one), "notes": footnotes(one),
            "rows": [
                {
                    "ours": row.is_ours, "model": row.model, "marks": row.marks,
                    "openness": openness(row) if one.table.has_openness else (),
                    "cells": [
                        (*numbers(cell), cell.marks) for cell in (*row.cells, *filter(None, (row.average,)))
                    ],
                }
                for row in one.rows
            ],
        }
        for one in filled
    ]  # fmt: skip
    drawn = [*_drawn(curves or {}, "demonstrations"), *_drawn(token_curves or {}, "billion tokens of training")]
    return render_template("xgenmm_jax.reporting", "paper_table.html", refresh_s=0, tables=shown, curves=drawn)


def _drawn(curves: Mapping[str, Sequence[Point]], x_title: str) -> list[dict[str, Any]]:
    return [
        {"title": title, "svg": curve(points, max(x for x, _ in points), title, x_title, "score", is_noisy=False)}
        for title, points in curves.items()
    ]


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(text) for text in texts) + " |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
