"""IDL in the tars of pixparse/idl-wds: scanned documents, a page's image and the lines that were read on it.

Source: docs/reference/data.md#idl
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError, shown
from xgenmm_jax.data.images import page_openers
from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.storage.base import Raw

_TIFF = ("tif", "tiff")


@dataclass(frozen=True)
class Idl:
    """A `Caption` of one page of a document: the page's image, and its lines as text; which page, the order draws.

    Pages that have both an image and text are there to choose from; where image and annotation have other numbers of
    pages, what goes beyond the shorter is left out. A page with text whose image is damaged is left out and told in
    `Caption.lost`; where no other page is left, the document is an error of its record. A page is read out of the
    document's TIFF alone: a PDF is not rendered here, and a document that has nothing else is such an error too.

    between_lines: what stands between two lines of a page.
    """

    between_lines: str = "\n"

    label: ClassVar[str] = "idl"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("json",)

    @property
    def optional(self) -> tuple[str, ...]:
        return _TIFF

    def choices(self, raw: Raw) -> int:
        """Pages with an image and text. Raises RecordError as `read`."""
        return len(self._pages(raw)[0])

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where the annotation is of another form, or no page has both an image and text."""
        pages, lost = self._pages(raw)
        number, image, text = pages[choice]
        return Caption(f"{raw.key}[page {number}]", image, text, lost)

    def _pages(self, raw: Raw) -> tuple[list[tuple[int, LazyImage, str]], tuple[str, ...]]:
        """Number, image and text of each page to choose from, and what is wrong with those that cannot be opened."""
        annotated = _lines(raw)
        openers = page_openers(_tiff(raw), raw.key)
        pages: list[tuple[int, LazyImage, str]] = []
        lost: list[str] = []
        for number, (opened, lines) in enumerate(zip(openers, annotated, strict=False), start=1):
            text = self.between_lines.join(lines)
            if not text.strip():
                continue
            try:
                pages.append((number, opened(), text))
            except ValueError as error:
                lost.append(str(error))
        if not pages and lost:
            raise RecordError(raw.key, f"none of its {len(lost)} pages with text can be opened; the first: {lost[0]}")
        if not pages:
            count = len(openers)
            raise RecordError(raw.key, f"no text on any of its pages, {len(annotated)} in 'json', {count} in the image")
        return pages, tuple(lost)


def _lines(raw: Raw) -> list[list[str]]:
    """The lines of each page, in the order in which they were read."""
    annotation = raw.json("json")
    if not isinstance(annotation, dict) or "pages" not in annotation:
        there = ", ".join(repr(name[:100]) for name in list(annotation)[:50]) if isinstance(annotation, dict) else ""
        raise RecordError(raw.key, f"'json' has no 'pages'; it has {there or type(annotation).__name__}")
    pages = annotation["pages"]
    if not isinstance(pages, list):
        raise RecordError(raw.key, f"'pages' is {type(pages).__name__}, wanted a list")
    lines = []
    for number, page in enumerate(pages):
        text = page.get("text") if isinstance(page, dict) else page
        if not isinstance(text, list) or not all(isinstance(line, str) for line in text):
            raise RecordError(raw.key, f"'text' of page {number + 1} is {shown(text)}; wanted a list of lines")
        lines.append(text)
    return lines


def _tiff(raw: Raw) -> bytes:
    name = next((name for name in _TIFF if raw.fields.get(name) is not None), None)
    if name is not None:
        return raw.data(name)
    if "pdf" in raw.fields:
        raise RecordError(raw.key, "a PDF, which is not rendered here, and no TIFF; render its pages to <key>.tif")
    there = ", ".join(map(repr, raw.fields)) or "nothing"
    raise RecordError(raw.key, f"no TIFF of its pages; it has {there}")
