"""HTML pages as documents of images and texts in their order, the images in files beside them.

Tags are cut out here, in one pass, and not by the standard library's parser: on Python 3.11.7 that takes 37 s for
200 kB of "<!--" and 45 s for 50 kB of "<a ", and ends "<![<![" with an assertion.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import functools
import html
import re
from typing import ClassVar
from urllib.parse import unquote

from xgenmm_jax.data.errors import FEW_IMAGES, LeftOut, RecordError
from xgenmm_jax.data.readers.interleaved import Interleaved, OpenImage
from xgenmm_jax.data.records import Document
from xgenmm_jax.data.storage.base import Raw

MOST_BYTES = 8 << 20
"""Of a page; a longer one is counted and not read."""

_UNSEEN = frozenset("script style noscript template nav iframe object svg canvas audio video select textarea".split())
"""Elements of which nothing is read: no text of the page, or none that stands in it as text."""

_RAW = frozenset(("script", "style", "iframe", "textarea", "noscript"))
"""Elements in which "<" is text up to their own end tag."""

_PARAGRAPHS = frozenset("p h1 h2 h3 h4 h5 h6 blockquote pre figure table ul ol dl hr title".split())
_LINES = frozenset(
    "address article aside body caption center dd details div dt fieldset figcaption footer form header html legend li "
    "main section summary tbody tfoot thead tr br".split()
)
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())

_NAME = re.compile(r"</?([a-zA-Z][^\s/>]*)")
_TAG_PART = re.compile(r">|=\s*([\"'])")
_ATTRIBUTE = re.compile(r"([^\s/>=]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+)))?")
_SPACES = re.compile(r"[ \t\n\r\f]+")
_CHARSET = re.compile(rb"<(?:meta\b[^>]*?charset|\?xml\b[^>]*?encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_CODECS = re.compile(
    r"utf-?8|cp125\d|windows-125\d|iso-?8859-\d+|koi8-[ru]|shift_jis|euc-(jp|kr)|gb(k|2312|18030)|big5", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Html(Interleaved):
    """Pages of a `Folder`: text as a browser shows it, and the images of `<img src>` where they stand.

    without_classes: elements of one of these classes are left out, ("navheader", "navfooter"), as scripts, styles and
        `<nav>` are.

    A paragraph ends in an empty line, cells of a table in a tab. The title stands first unless a heading says the same.
    Images are files beside the page; URLs and data: URIs are never fetched, and counted in `Document.dropped`.
    """

    without_classes: tuple[str, ...] = ()

    label: ClassVar[str] = "html"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("data",)

    def read(self, raw: Raw, choice: int) -> Document:
        """Raises RecordError where no image can be had or the page is too long, LeftOut where it has too few."""
        data = raw.data("data")
        if len(data) > MOST_BYTES:
            raise RecordError(raw.key, f"the page has {len(data):,} bytes, more than {MOST_BYTES:,}")
        parts: list[str | OpenImage] = []
        elsewhere = 0
        for is_image, part in _Page(frozenset(self.without_classes)).parts(_decoded(data)):
            if not is_image:
                parts.append(part)
            elif re.match(r"\s*(//|[a-zA-Z][a-zA-Z0-9+.-]*:)", part) or not part.strip():
                elsewhere += 1
            else:
                name = unquote(re.split(r"[?#]", part.strip())[0])
                parts.append(functools.partial(raw.image, name))
        if all(isinstance(part, str) for part in parts) and not elsewhere:
            raise LeftOut(raw.key, FEW_IMAGES, "the page has no image; PlainText reads text alone")
        return self.document(raw, parts, choice, elsewhere)


def _decoded(data: bytes) -> str:
    """The page's text by its mark or the encoding that it names, else UTF-8; what is damaged becomes U+FFFD."""
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    named = _CHARSET.search(data[:1024])
    name = named[1].decode("ascii", "replace") if named else "utf-8"
    if not _CODECS.fullmatch(name):
        name = "utf-8"
    # Browsers take Latin-1 for the code page that has more letters.
    name = "cp1252" if name.lower().replace("-", "") == "iso88591" else name
    try:
        return data.decode(name, "replace")
    except LookupError:  # iso-8859-99
        return data.decode("utf-8", "replace")


def _tokens(text: str) -> Iterator[tuple[str, str, str]]:
    """("text", TEXT, ""), ("start", NAME, ATTRIBUTES), ("end", NAME, "") in one pass; comments give nothing."""
    at, absent = 0, set()
    while at < len(text):
        opens = text.find("<", at)
        if opens != at:
            yield "text", text[at : opens if opens > 0 else len(text)], ""
        if opens < 0:
            return
        name = _NAME.match(text, opens)
        if name is None:
            is_comment = text.startswith(("<!", "<?", "</"), opens)
            if not is_comment:
                yield "text", "<", ""
                at = opens + 1
                continue
            mark = "-->" if text.startswith("<!--", opens) else ">"
            closes = text.find(mark, opens + 2)
            if closes < 0:
                return
            at = closes + len(mark)
            continue
        at = name.end()
        while True:
            part = _TAG_PART.search(text, at)
            if part is None:
                return  # cut off inside of a tag
            at = part.end()
            if part[1] is None:
                break
            closes = -1 if part[1] in absent else text.find(part[1], at)
            if closes < 0:
                absent.add(part[1])
            else:
                at = closes + 1
        word = name[1].lower()
        if text[opens + 1] == "/":
            yield "end", word, ""
            continue
        yield "start", word, text[name.end() : at - 1]
        if word in _RAW:
            end = re.compile(f"</{word}", re.IGNORECASE).search(text, at)
            if end is None:
                return
            at = end.start()


def _attributes(text: str) -> dict[str, str]:
    """The first of each name counts, as in a browser."""
    values: dict[str, str] = {}
    for match in _ATTRIBUTE.finditer(text):
        value = next((group for group in match.groups()[1:] if group is not None), "")
        values.setdefault(match[1].lower(), html.unescape(value))
    return values


class _Page:
    """Makes texts and images of a page's tokens. It counts open elements by name alone, so no depth is too deep."""

    def __init__(self, without_classes: frozenset[str]):
        self._without = without_classes
        self._text: list[str] = []
        self._break, self._space, self._pre = "", False, 0

    def parts(self, text: str) -> Iterator[tuple[bool, str]]:
        """(False, text) and (True, src) in their order."""
        unseen, depth, title, heading = "", 0, None, None
        title_from = heading_from = None
        parts: list[tuple[bool, str]] = []
        for kind, name, attributes in _tokens(text):
            if unseen:
                depth += {"start": name == unseen, "end": -(name == unseen)}.get(kind, 0)
                unseen = unseen if depth > 0 else ""
            elif kind == "text":
                if title_from is not None:
                    title_from.append(name)
                    continue
                if heading_from is not None:
                    heading_from.append(name)
                self._add(html.unescape(name))
            elif kind == "start" and name not in _VOID and (name in _UNSEEN or self._is_unseen(attributes)):
                unseen, depth = name, 1
            elif name == "title":
                title_from = [] if kind == "start" and title is None else None
                title = title_from if title_from is not None else title
            else:
                if re.fullmatch(r"h[1-6]", name):
                    heading_from = [] if kind == "start" and heading is None else None
                    heading = heading_from if heading_from is not None else heading
                self._element(kind, name)
                if kind == "start" and name == "img":
                    parts += self._flushed()
                    parts.append((True, _attributes(attributes).get("src", "")))
        parts += self._flushed()
        titled, headed = (_SPACES.sub(" ", html.unescape("".join(one or []))).strip() for one in (title, heading))
        if titled and titled != headed:
            has_text = bool(parts) and not parts[0][0]
            parts[: int(has_text)] = [(False, f"{titled}\n\n{parts[0][1]}" if has_text else titled)]
        yield from parts

    def _is_unseen(self, attributes: str) -> bool:
        if not attributes or ("hidden" not in attributes and not self._without):
            return False
        values = _attributes(attributes)
        return "hidden" in values or not self._without.isdisjoint(values.get("class", "").split())

    def _element(self, kind: str, name: str) -> None:
        if name == "pre":
            self._pre = max(0, self._pre + (1 if kind == "start" else -1))
        if name in _PARAGRAPHS:
            self._break = "\n\n"
        elif name in _LINES:
            self._break = self._break or "\n"
        elif name in ("td", "th") and kind == "start" and not self._break:
            self._break = "\t"

    def _add(self, text: str) -> None:
        if self._pre:
            words, before, after = text.replace("\r\n", "\n"), False, False
        else:
            spaced = _SPACES.sub(" ", text)
            words, before, after = spaced.strip(" "), spaced.startswith(" "), spaced.endswith(" ")
        self._space |= before
        if words:
            if self._text:
                self._text.append(self._break or (" " if self._space else ""))
            self._text.append(words.replace("\xa0", " "))
            self._break, self._space = "", after

    def _flushed(self) -> list[tuple[bool, str]]:
        text = "".join(self._text).strip()
        self._text, self._break, self._space = [], "", False
        return [(False, text)] if text else []
