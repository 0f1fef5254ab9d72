"""VLMEvalKit's tables: one TSV a benchmark, pictures inside as base64.

Standard quoting by `"`, doubled inside; text outside of quotes is taken as it stands, which is how `pandas.read_csv`
reads them. Only offsets of pictures are kept: a table of several gigabytes is scanned once and never in memory.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import functools
import mmap
import os
from pathlib import Path
import re

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation.profiles import Reading
from xgenmm_jax.evaluation.published.cells import read_column
from xgenmm_jax.evaluation.published.file_images import FileImages
from xgenmm_jax.evaluation.published.literals import texts_of

IMAGE_COLUMN = "image"
MOST_REFERENCE = 64
"""Characters of an `image` cell that may be the index of the row that holds the picture."""
_BREAK = re.compile(rb"[\t\r\n]")


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    index: its name in the table, by which predictions are joined. cells: its text columns that have a value, by name.
    images: in the row's order; empty where one cannot be read, and then `unreadable` says why.
    first_with_image: the index of the first row with the same first image, so equal for questions about one image.
    reading: of the cells.
    """

    index: str
    cells: Mapping[str, str]
    images: tuple[LazyImage, ...]
    unreadable: str = ""
    first_with_image: str = ""
    reading: Reading = "careful"

    def options(self) -> dict[str, str]:
        """The columns A, B, ... Z that have a value: letter to text."""
        return {name: text for name, text in self.cells.items() if len(name) == 1 and "A" <= name <= "Z"}


@dataclass(frozen=True)
class Table:
    """rows: those with a picture; without_image: how many more the file has, which the toolkit leaves out too."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    without_image: int


@dataclass(frozen=True)
class _Cell:
    """Bytes of the file from start to end, with the quotes of a cell that begins with one."""

    start: int
    end: int

    @property
    def is_long(self) -> bool:
        """Whether it has a picture of its own, and no reference to another row's."""
        return self.end - self.start > MOST_REFERENCE + 2


def read_table(path: Path, required: Sequence[str], reading: Reading) -> Table:
    """The rows of a TSV.

    required: columns without which the benchmark cannot be asked; `image` is one always.

    Raises: ValueError where the file is empty, lacks a column (with those found), is no UTF-8, or a row has more cells
    than the header.
    """
    if path.stat().st_size == 0:
        raise ValueError(f"benchmark: '{path}' is empty; copy it again.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        lines = _lines(data, path)
        header = [_text(data, cell, path, 1) for cell in next(lines, [])]
        header[:1] = [name.removeprefix("\ufeff") for name in header[:1]]
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise ValueError(f"benchmark: '{path}' has two columns {', '.join(map(repr, twice))}; copy it again.")
        missing = [name for name in ("index", IMAGE_COLUMN, *required) if name not in header]
        if missing:
            raise ValueError(
                f"benchmark: '{path}' has no column {', '.join(map(repr, missing))}; found: {', '.join(header)}."
            )
        table = _Reader(path, header, data)
        for number, cells in enumerate(lines, start=2):
            table.add(cells, number)
        return table.rows(reading)


def _lines(data: mmap.mmap, path: Path) -> Iterator[list[_Cell]]:
    """Cells of each line that is not blank. Raises ValueError where a quoted cell has no end."""
    position, size = 0, len(data)
    while position < size:
        cells, line_end = [], False
        while not line_end:
            try:
                cell, position, line_end = _cell(data, position, size)
            except EOFError as error:
                raise ValueError(
                    f"benchmark: '{path}' has a quoted cell without an end, at byte {position:,}; copy it again."
                ) from error
            cells.append(cell)
        if len(cells) > 1 or cells[0].end > cells[0].start:
            yield cells


def _cell(data: mmap.mmap, position: int, size: int) -> tuple[_Cell, int, bool]:
    """The cell that begins here, where the next one begins, and whether this one ends its line."""
    start = position
    if data[position : position + 1] == b'"':
        position = _closing_quote(data, position + 1) + 1
    match = _BREAK.search(data, position)
    end = match.start() if match else size
    after = end + 1
    if match and match.group() == b"\r" and data[end + 1 : end + 2] == b"\n":
        after += 1
    is_last = match is None or match.group() != b"\t"
    return _Cell(start, end), min(after, size) if is_last else after, is_last


def _closing_quote(data: mmap.mmap | bytes, position: int) -> int:
    """Where the quoted text that begins here ends. Raises EOFError where it does not."""
    while True:
        quote = data.find(b'"', position)
        if quote < 0:
            raise EOFError
        if data[quote + 1 : quote + 2] != b'"':
            return quote
        position = quote + 2


def _text(data: mmap.mmap, cell: _Cell, path: Path, line: int) -> str:
    raw = data[cell.start : cell.end]
    if raw[:1] == b'"':
        return _unquoted(raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"benchmark: '{path}', line {line} is no UTF-8 ({error.reason}); copy it again.") from error


def _unquoted(raw: bytes) -> str:
    """The text of a quoted cell. What stands behind the closing quote belongs to it, as for pandas."""
    end = _closing_quote(raw, 1)
    return (raw[1:end].replace(b'""', b'"') + raw[end + 1 :]).decode("utf-8", "replace")


class _Reader:
    """Gathers lines, then makes rows: types of columns and references between rows need all of them."""

    def __init__(self, path: Path, header: list[str], data: mmap.mmap):
        self._path, self._header, self._data = path, header, data
        self._columns: dict[str, list[str]] = {name: [] for name in header if name != IMAGE_COLUMN}
        self._image_cells: list[_Cell] = []
        self._known = FileImages()
        self._of_span: dict[_Span, LazyImage] = {}

    def add(self, cells: list[_Cell], line: int) -> None:
        if len(cells) > len(self._header):
            raise ValueError(
                f"benchmark: '{self._path}', row {line} has {len(cells)} cells and the header {len(self._header)}; "
                "copy it again."
            )
        cells = [*cells, *[_Cell(0, 0)] * (len(self._header) - len(cells))]
        for name, cell in zip(self._header, cells, strict=True):
            if name == IMAGE_COLUMN:
                self._image_cells.append(cell)
            else:
                self._columns[name].append(_text(self._data, cell, self._path, line))

    def rows(self, reading: Reading) -> Table:
        texts = {name: read_column(cells, reading) for name, cells in self._columns.items()}
        indices = [index or "" for index in read_column(self._columns["index"], "as_published")]
        row_of = {index: number for number, index in enumerate(indices)}
        rows = []
        first_with: dict[int, str] = {}
        for number, index in enumerate(indices):
            cell = self._image_cells[number]
            if self._data[cell.start : min(cell.end, cell.start + 3)] in (b"", b'""'):
                continue
            named = {name: values[number] for name, values in texts.items() if name != "index"}
            cells = {name: text for name, text in named.items() if text is not None}
            try:
                images, unreadable = tuple(self._images(number, index, row_of)), ""
            except ValueError as error:
                images, unreadable = (), str(error)
            first = first_with.setdefault(id(images[0]), index) if images else index
            rows.append(Row(index, cells, images, unreadable, first, reading))
        return Table(tuple(rows), tuple(self._header), len(indices) - len(rows))

    def _images(self, number: int, index: str, row_of: Mapping[str, int]) -> Iterator[LazyImage]:
        cell = self._resolved(self._image_cells[number], index, row_of)
        name = f"of row {index} in '{self._path}'"
        if self._data[cell.start : cell.start + 2].lstrip(b'"')[:1] != b"[":
            yield self._image(_Span(self._path, cell.start, cell.end), name)
            return
        text, position = _text(self._data, cell, self._path, number), cell.start
        for part, encoded_text in enumerate(texts_of(text, f"benchmark: the pictures {name}")):
            if len(encoded_text) <= MOST_REFERENCE and encoded_text in row_of:
                yield from self._images(row_of[encoded_text], encoded_text, {})
                continue
            encoded = encoded_text.encode("ascii", "replace")
            at = self._data.find(encoded, position, cell.end)
            position = max(at, position)
            end = at + len(encoded)
            span = _Span(self._path, cell.start, cell.end, part) if at < 0 else _Span(self._path, at, end)
            yield self._image(span, name)

    def _resolved(self, cell: _Cell, index: str, row_of: Mapping[str, int]) -> _Cell:
        """The cell that holds the picture: of another row where this one names it."""
        if cell.is_long or _text(self._data, cell, self._path, 0).startswith("["):
            return cell
        reference = _text(self._data, cell, self._path, 0)
        if reference not in row_of:
            raise ValueError(f"image: of row {index} is '{reference}', neither base64 nor the index of another row.")
        target = self._image_cells[row_of[reference]]
        if not target.is_long:
            raise ValueError(f"image: row {index} names row {reference}, which has no picture of its own.")
        return target

    def _image(self, span: "_Span", name: str) -> LazyImage:
        """Read once, however many rows name it."""
        if span not in self._of_span:
            read = functools.partial(_encoded, span, name)
            self._of_span[span] = self._known.image(read(), read, name)
        return self._of_span[span]


@dataclass(frozen=True)
class _Span:
    """Where a picture's base64 lies in a file. part: of a list that is written with escapes, its number in it."""

    path: Path
    start: int
    end: int
    part: int | None = None


def _encoded(span: _Span, name: str) -> bytes:
    """The picture's bytes as they are in the file now. Quotes around base64 do not matter."""
    with span.path.open("rb") as file:
        raw = os.pread(file.fileno(), span.end - span.start, span.start)
    if span.part is not None:
        text = _unquoted(raw) if raw[:1] == b'"' else raw.decode("utf-8")
        raw = texts_of(text, f"benchmark: the pictures {name}")[span.part].encode("ascii", "replace")
    try:
        return base64.b64decode(raw)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"image: {name} is no base64 ({error}).") from error
