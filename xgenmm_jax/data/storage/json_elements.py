"""Where the objects of a JSON file lie, found in one pass in blocks: of a list, of lines, or of one object by key.

Every object is parsed once on the way, which finds its end and says that it is JSON. Measured on one core: LLaVA's form
180 MB/s as lines or as a list, 55 MB/s where objects are small and full of numbers (DVQA).
"""

import codecs
from collections.abc import Generator, Iterator
import json
import re
from typing import Any, BinaryIO, Literal, NamedTuple

from xgenmm_jax.data.errors import SourceError

LINES = (".jsonl", ".ndjson")
"""Ends of names of files of lines, whatever their first character is."""

MOST_BYTES = 64 << 20
"""A longer object is not read."""

_BLOCK = 256 << 10
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
_FIRST_MEMBER = re.compile(r'\{\s*+("(?:[^"\\]|\\.){0,200}+")\s*+:\s*+(.)', re.DOTALL)
_DECODER = json.JSONDecoder()


class Element(NamedTuple):
    """An object of a list, of a line or of an object: where its bytes lie, of a member with its key.

    number: of the element, the line or the member, from 1.
    """

    kind: Literal["element", "line", "member"]
    number: int
    offset: int
    size: int
    value: Any
    reason: str = ""
    """Why it is refused, one of few; "" where it is an object."""
    key: str = ""
    """Of a member."""


def elements(file: BinaryIO, path: str) -> Iterator[Element]:
    """The elements of a JSON list, or the lines that are not blank, in their order.

    Raises SourceError where the file is empty, a list is cut off or damaged, or it holds something else.
    """
    head, start, first = _begun(file, path)
    if first == b"[":
        text = _Text(file, path, head, start)
        end = yield from _items(text, text.after_space(0))
        text.check_end(end)
    elif path.endswith(LINES):
        yield from _of_lines(file, head, start)
    elif first == b"{":
        yield from _unless_one_object(_of_lines(file, head, start), path, head[start:])
    else:
        begins = head[start : start + 60].decode("utf-8", "replace").strip()
        raise SourceError(
            f"data: '{path}' is no JSON (it begins {begins!r}); wanted a list of objects, or their lines."
        )


def of_object(file: BinaryIO, path: str, member: str = "") -> Iterator[Element]:
    """The members of a file that is one object; with `member` what the value of that name holds, a list or an object.

    Raises SourceError where the file is empty, cut off, damaged or no object, or has no such member.
    """
    head, start, first = _begun(file, path)
    if first != b"{":
        raise SourceError(
            f"data: '{path}' begins with {first.decode('utf-8', 'replace')!r} and is no object of records; "
            "`JsonFiles` reads lists and lines."
        )
    text = _Text(file, path, head, start)
    at = text.after_space(0)
    end = yield from _of_member(text, at, path, member) if member else _items(text, at)
    text.check_end(end)


def _begun(file: BinaryIO, path: str) -> tuple[bytes, int, bytes]:
    """The first block of a file, where its text begins, and the first character that is no white space."""
    head = _read(file, _BLOCK)
    start = len(_BOM) if head.startswith(_BOM) else 0
    first = head[start:].lstrip()[:1]
    if not first:
        raise SourceError(f"data: '{path}' is empty; copy it again.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(f"data: '{path}' is UTF-16; save it as UTF-8, for instance with iconv.")
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")):
        raise SourceError(f"data: '{path}' is compressed; unpack it: records of it are read at random.")
    return head, start, first


def _read(file: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer at the end of the file alone: a raw or remote file may give less at a time."""
    data = file.read(size)
    while data and len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _of_lines(file: BinaryIO, head: bytes, start: int) -> Iterator[Element]:
    number, offset = 0, start
    parts, held = [], 0  # of the line that a block ends in
    block = head[start:]
    too_long = False
    while block:
        *lines, rest = block.split(b"\n")
        for line in lines:
            number += 1
            if parts:
                line = b"".join((*parts, line))
                parts, held = [], 0
            if too_long:
                offset, too_long = offset + len(line) + 1, False
                continue
            if element := _line(number, offset, line):
                yield element
            offset += len(line) + 1
        if too_long:
            offset += len(rest)
        elif rest:
            parts.append(rest)
            held += len(rest)
            if held > MOST_BYTES:
                yield Element("line", number + 1, offset, held, None, f"longer than {MOST_BYTES >> 20} MiB")
                offset, parts, held, too_long = offset + held, [], 0, True
        block = _read(file, _BLOCK)
    if parts and (element := _line(number + 1, offset, b"".join(parts))):
        yield element


def _line(number: int, offset: int, line: bytes) -> Element | None:
    """None of a blank line."""
    line = line.rstrip(b" \t\r")
    if not line:
        return None
    value, reason = None, ""
    if len(line) > MOST_BYTES:
        reason = f"longer than {MOST_BYTES >> 20} MiB"
    else:
        try:
            value = json.loads(line.decode("utf-8"))
            reason = "" if isinstance(value, dict) else "no object"
        except UnicodeDecodeError:
            reason = "no UTF-8"
        except RecursionError:
            reason = "nested too deeply"
        except ValueError:
            reason = "no JSON, or torn"
    return Element("line", number, offset, len(line), value, reason)


def _unless_one_object(lines: Iterator[Element], path: str, head: bytes) -> Iterator[Element]:
    """The lines of a .json file. Raises SourceError where it is one object in several lines, or one of many records."""
    first = next(lines)
    second = next(lines, None) if not first.reason else None
    if first.reason or (second is None and _is_table(first.value)):
        member = _FIRST_MEMBER.match(head.decode("utf-8", "replace").lstrip())
        kind = {"{": "an object", "[": "a list"}.get(member[2], "a value") if member else ""
        whose = f", whose {member[1]} is {kind}" if member else ""
        line = f" (line {first.number} is {first.reason})" if first.reason else ""
        raise SourceError(
            f"data: '{path}' is one object{whose}, and neither a list of objects nor lines of them{line}; "
            "wanted [{...}, ...], or one {...} a line; `JsonObject` reads the records of one object."
        )
    yield first
    if second is not None:
        yield second
    yield from lines


def _is_table(value: dict[str, Any]) -> bool:
    """Whether the one object of a file holds many records: objects by name (GQA), or lists of one length (SBU)."""
    values = list(value.values())
    if all(isinstance(one, list) for one in values):
        return len(values) > 1 and len({len(one) for one in values}) == 1
    return all(isinstance(one, dict) for one in values)


def _items(text: "_Text", at: int) -> Generator[Element, None, int]:
    """The elements of a list, or the members of an object, that begins at a place; gives the place behind its end."""
    is_object = text.text[at] == "{"
    text.kind = kind = "member" if is_object else "element"
    closing = end_mark = "}" if is_object else "]"
    at, number, key = at + 1, 0, ""
    while True:
        at = text.next_mark(at, number + 1)
        if text.text[at] == end_mark:
            return at + 1
        if is_object:
            key, start, colon = _key(text, at, number + 1)
            offset = text.byte(start)
            value, _, end, mark = _value(text, text.next_mark(colon + 1, number + 1), number + 1, ",}")
        else:
            value, start, end, mark = _value(text, at, number + 1, ",]")
            offset = text.byte(start)
        number += 1
        reason = "" if isinstance(value, dict) else "no object"
        yield Element(kind, number, offset, text.byte(end) - offset, value, reason, key)
        is_last = text.text[mark] == closing
        at, end_mark = (mark, closing) if is_last else (mark + 1, None)  # behind a comma another follows


def _of_member(text: "_Text", at: int, path: str, name: str) -> Generator[Element, None, int]:
    """What one member of an object holds; the other members are passed over. Gives the place behind the object."""
    at, number, end_mark, is_there = at + 1, 0, "}", False
    names: list[str] = []  # the first ones, for the error
    while True:
        text.kind = "member"
        at = text.next_mark(at, number + 1)
        if text.text[at] == end_mark:
            break
        key, _, colon = _key(text, at, number + 1)
        number += 1
        names += [key[:100]] if number <= 50 else []
        is_there |= key == name
        at = text.next_mark(colon + 1, number)
        if text.text[at] in "[{":
            items = _items(text, at)
            behind = (yield from items) if key == name else _passed_over(items)
            text.kind = "member"
            mark = text.next_mark(behind, number)
            if text.text[mark] not in ",}":
                raise text.error(number, "no comma behind it")
        else:
            _, _, _, mark = _value(text, at, number, ",}")
            if key == name:
                raise SourceError(f"data: '{name}' of '{path}' is neither a list nor an object; name another member.")
        is_last = text.text[mark] == "}"
        at, end_mark = (mark, "}") if is_last else (mark + 1, None)
    if not is_there:
        there = ", ".join(map(repr, names)) or "nothing"
        raise SourceError(f"data: '{path}' has no member '{name}'; it has {there}.")
    return at + 1


def _passed_over(items: Generator[Element, None, int]) -> int:
    while True:
        try:
            next(items)
        except StopIteration as stop:
            return stop.value


def _key(text: "_Text", at: int, number: int) -> tuple[str, int, int]:
    """A member's key, its place, and the place of the colon behind it."""
    if text.text[at] != '"':
        raise text.error(number, "no key")
    key, start, _, colon = _value(text, at, number, ":")
    return key, start, colon


def _value(text: "_Text", at: int, number: int, marks: str) -> tuple[Any, int, int, int]:
    """A value, its place, its end, and the place of the mark behind it.

    It is taken once the mark is there: "12" may be the beginning of "123".
    """
    while True:
        try:
            value, end = _DECODER.raw_decode(text.text, at)
        except RecursionError as error:
            raise text.error(number, "it is nested too deeply") from error
        except json.JSONDecodeError as error:
            at = text.more(at, number, error.msg)
            continue
        behind = text.after_space(end)
        if behind < len(text.text) and text.text[behind] in marks:
            return value, at, end, behind
        at = text.more(at, number, f"no {'colon' if marks == ':' else 'comma'} behind it")


class _Text:
    """The part of a file's text that is looked at: from an element on that is not whole yet."""

    def __init__(self, file: BinaryIO, path: str, head: bytes, start: int):
        self._file, self._path = file, path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._at, self._at_byte = 0, start  # a place in the text, and where it lies in the file
        self.kind = "element"  # what is read: an element of a list or a member of an object
        self.text = self._decoded(head[start:])

    def after_space(self, at: int) -> int:
        return _SPACE.match(self.text, at).end()

    def next_mark(self, at: int, number: int) -> int:
        """The place of the next character that is no white space. Raises SourceError where the file ends before it."""
        at = self.after_space(at)
        while at == len(self.text):
            at = self.after_space(self.more(at, number, "it ends there"))
        return at

    def byte(self, at: int) -> int:
        """Where a place of the text lies in the file; places are asked for in their order."""
        self._at_byte += len(self.text[self._at : at].encode())
        self._at = at
        return self._at_byte

    def more(self, at: int, number: int, problem: str) -> int:
        """Reads on, as much again as is held, and gives the new place of `at`; what lies before it is dropped.

        Raises SourceError where the file has ended, or an element has grown too long.
        """
        self.byte(at)
        rest = self.text[at:]
        if len(rest) > MOST_BYTES:
            raise self.error(number, f"longer than {MOST_BYTES >> 20} MiB, or: {problem}")
        data = _read(self._file, max(_BLOCK, len(rest)))
        if not data:
            raise self.error(number, problem)
        self.text, self._at = rest + self._decoded(data), 0
        return 0

    def error(self, number: int, problem: str) -> SourceError:
        return SourceError(
            f"data: the {self._whole} of '{self._path}' is cut off or damaged in {self.kind} {number:,}, near byte "
            f"{self._at_byte:,} ({problem}); copy it again."
        )

    def check_end(self, at: int) -> None:
        """Raises SourceError unless white space alone lies from a place on to the end of the file."""
        rest = self.text[at:]
        while True:
            if behind := rest.strip(" \t\r\n")[:60]:
                raise SourceError(
                    f"data: '{self._path}' goes on behind the end of its {self._whole} with {behind!r}; copy it again."
                )
            data = _read(self._file, _BLOCK)
            if not data:
                return
            rest = self._decoded(data)

    @property
    def _whole(self) -> str:
        return "object" if self.kind == "member" else "list"

    def _decoded(self, data: bytes) -> str:
        try:
            return self._decoder.decode(data)
        except UnicodeDecodeError as error:
            raise SourceError(
                f"data: '{self._path}' is not UTF-8 (byte 0x{error.object[error.start]:02x} behind byte "
                f"{self._at_byte:,}); save it as UTF-8, for instance with iconv."
            ) from error
