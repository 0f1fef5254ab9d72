"""A look at data before they are indexed: what fields records have, which readers read them, which are bad and why.

Nothing is written. Unlike an index this decodes images, so it finds what would be found in the middle of a run.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from xgenmm_jax.data.errors import (
    BAD_IMAGE,
    LOST_PAGE,
    UNREADABLE,
    UNUSABLE,
    RecordError,
    SourceError,
    is_of_a_record,
    reason_of,
)
from xgenmm_jax.data.image_files import head_of, kind_of
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.index.counts import Spread
from xgenmm_jax.data.index.measure import THREADS, Measurer
from xgenmm_jax.data.index.shapes import check_sides
from xgenmm_jax.data.readers.base import Reader, every_record
from xgenmm_jax.data.records import Caption, Document, Record, images_of
from xgenmm_jax.data.storage.base import Located, Raw, Shard, Storage
from xgenmm_jax.data.text import chat

SHOWN = 10
"""Records whose values are shown, and on which readers are tried."""
TEXT_SHOWN = 60
"""Characters of a value."""


class Shown(NamedTuple):
    """A record's name, and its fields' values, shortened."""

    key: str
    values: dict[str, str]


@dataclass
class Checked:
    """What was found.

    walked, walked_records: shards that were walked for their records, from the first on, and how many these hold.
    fields: of each in how many records it is, by type. bad: by (reason, what is wrong); examples: the first record of
    each. readable: of each reader that was tried, how many of the first `tried` records it reads.
    """

    shards: int
    bytes: int
    walked: int = 0
    walked_records: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    fields: dict[str, Counter[str]] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)
    bad: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    spreads: dict[str, Spread] = field(default_factory=dict)
    tried: int = 0
    readable: Counter[str] = field(default_factory=Counter)

    def note_bad(self, record: str, reason: str, cause: str) -> None:
        self.bad[reason, cause] += 1
        self.examples.setdefault((reason, cause), record)

    def note_size(self, name: str, numbers: Sequence[int]) -> None:
        self.spreads.setdefault(name, Spread()).add(np.array(numbers, np.int64))


def check(
    storage: Storage,
    count: int,
    reader: Reader | None = None,
    measurer: Measurer | None = None,
    candidates: Sequence[Reader] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Checked:
    """Reads the first `count` records, by the reader where there is one, else by each candidate a few.

    measurer: tokenizes them too. Raises SourceError where a shard cannot be read, or lacks a field that the reader
    wants.
    """
    paths = storage.shards()
    checked = Checked(len(paths), sum(map(storage.size, paths)))
    with ThreadPoolExecutor(THREADS, "check") as pool:
        for path in paths:
            if checked.read >= count:
                break
            located = storage.locate(path)
            checked.walked += 1
            checked.walked_records += located.records
            checked.refused.update(one.reason for one in located.refused)
            numbers = range(min(located.records, count - checked.read))
            if not len(numbers):
                continue
            tried = numbers[: SHOWN - checked.tried]
            if reader is None and len(tried):
                checked.tried += len(tried)
                for one in candidates:
                    checked.readable[one.label] += _read_by(one, storage, path, located, tried)
            _check_shard(checked, storage, path, located, numbers, reader, measurer, pool, count, progress)
    return checked


def _check_shard(
    checked: Checked,
    storage: Storage,
    path: str,
    located: Located,
    numbers: range,
    reader: Reader | None,
    measurer: Measurer | None,
    pool: ThreadPoolExecutor,
    count: int,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    # All fields of the records that are shown, and where nothing is read by a reader, of all.
    whole = storage.open(path, located, (), ())
    try:
        looked_at = numbers if reader is None else numbers[: max(0, SHOWN - len(checked.shown))]
        for raw in _in_order(pool, lambda number: _raw(whole, number), looked_at):
            if isinstance(raw, Raw):
                _note_fields(checked, raw)
            elif reader is None:
                checked.note_bad(*raw)
            if reader is None:
                checked.read += 1
                _tell(progress, checked.read, count)
    finally:
        whole.close()
    if reader is None:
        return
    try:
        shard = storage.open(path, located, reader.fields, reader.optional)
    except SourceError as error:
        raise SourceError(f"{error} (read by {type(reader).__name__})") from error
    try:
        for one in _in_order(pool, lambda number: _read(shard, number, reader, measurer), numbers):
            checked.read += 1
            checked.kinds.update(one.kinds)
            for bad in one.bad:
                checked.note_bad(*bad)
            for name, sizes in one.sizes.items():
                checked.note_size(name, sizes)
            _tell(progress, checked.read, count)
    finally:
        shard.close()


def _in_order(pool: ThreadPoolExecutor, work: Callable[[int], Any], numbers: range) -> Iterator[Any]:
    """What `work` gives, some records ahead and no more: they hold images."""
    for start in range(0, len(numbers), 8 * THREADS):
        yield from pool.map(work, numbers[start : start + 8 * THREADS])


def _tell(progress: Callable[[str, int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress("records read", done, total)


Bad = tuple[str, str, str]
"""Record, reason, what is wrong."""


class _Outcome(NamedTuple):
    kinds: list[str]
    bad: list[Bad]
    sizes: Mapping[str, list[int]]


def _raw(shard: Shard, number: int) -> Raw | Bad:
    try:
        return shard.read(number)
    except Exception as error:
        if not is_of_a_record(error):
            raise
        return _bad(error, f"record {number}", UNREADABLE)


def _read(shard: Shard, number: int, reader: Reader, measurer: Measurer | None) -> _Outcome:
    """A record with all of its texts, its images decoded."""
    raw = _raw(shard, number)
    if not isinstance(raw, Raw):
        return _Outcome([], [raw], {})
    sizes: dict[str, list[int]] = {"texts": [], "images": [], "tokens": []}
    reason = UNREADABLE
    try:
        records = every_record(reader, raw)
        reason = UNUSABLE
        for record in records if measurer is not None else ():
            sample = chat.sample(record, measurer.tokenizer, measurer.chat)
            check_sides(sample)
            sizes["tokens"].append(len(sample.token_ids))
        reason = BAD_IMAGE
        _decode(records[0])
    except Exception as error:
        if not is_of_a_record(error):
            raise
        return _Outcome([], [_bad(error, raw.key, reason)], {})
    sizes["texts"].append(len(records))
    sizes["images"].append(len(images_of(records[0])))
    if isinstance(records[0], Document):
        sizes["images left out"] = [records[0].dropped]
    lost = records[0].lost if isinstance(records[0], Caption) else ()
    bad = [_bad(ValueError(why), raw.key, LOST_PAGE) for why in lost]
    return _Outcome([type(records[0]).__name__], bad, sizes)


def _decode(record: Record) -> None:
    for image in images_of(record):
        image.load()


def _bad(error: Exception, record: str, reason: str) -> Bad:
    """Records with the same cause are counted together, so the cause does not name them."""
    if isinstance(error, RecordError):
        record, text = error.record, str(error.args[1])
    else:
        text = str(error)
    cause = (text.splitlines() or [type(error).__name__])[0]
    return record, reason_of(error, reason), cause.replace(record, "it")[:200]


def _read_by(reader: Reader, storage: Storage, path: str, located: Located, numbers: range) -> int:
    """How many of these records a reader reads; none where the storage lacks a field that it wants."""
    try:
        shard = storage.open(path, located, reader.fields, reader.optional)
    except SourceError:
        return 0
    try:
        return sum(bool(_read(shard, number, reader, None).kinds) for number in numbers)
    finally:
        shard.close()


def _note_fields(checked: Checked, raw: Raw) -> None:
    for name, value in raw.fields.items():
        checked.fields.setdefault(name, Counter())[type_in_words(value)] += 1
    if len(checked.shown) < SHOWN:
        values = {name: value_in_words(value) for name, value in raw.fields.items()}
        checked.shown.append(Shown(raw.key, values))


def type_in_words(value: Any) -> str:
    """ "text", "JPEG", "list of text", ..."""
    if isinstance(value, bytes):
        kind = kind_of(head_of(value))
        if kind is not None:
            return kind.name
        return "text" if _text(value) is not None else "bytes"
    if isinstance(value, list):
        inner = sorted({type_in_words(one) for one in value})
        return f"list of {' or '.join(inner)}" if inner else "empty list"
    names = {str: "text", bool: "true or false", int: "whole number", float: "number", dict: "object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def value_in_words(value: Any) -> str:
    """A value in one short line; of an image its format and size."""
    if isinstance(value, bytes):
        kind, text = kind_of(head_of(value)), _text(value)
        if kind is not None:
            return f"{kind.name} {_sides(value)}, {len(value):,} bytes"
        return f"{len(value):,} bytes" if text is None else _short(text)
    if isinstance(value, str):
        return _short(value)
    if isinstance(value, list):
        return _short(f"[{len(value)}] {', '.join(value_in_words(one) for one in value[:3])}")
    if isinstance(value, dict):
        return _short(", ".join(f"{name}: {value_in_words(one)}" for name, one in list(value.items())[:5]))
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {list(value.shape)}"
    return _short(str(value))


def _sides(data: bytes) -> str:
    try:
        width, height = image_from_bytes(data, "it", official=True).size_px
    except ValueError:
        return "(damaged)"
    return f"{width} x {height}"


def _text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if not text or sum(char.isprintable() or char.isspace() for char in text) > 0.9 * len(text) else None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT_SHOWN else f"{line[: TEXT_SHOWN - 3]}..."
