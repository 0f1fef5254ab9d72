"""JSON files: a record is an object of a list, of a line, or of one object of many, read by its range.

A file is scanned once for where its objects lie and is never in memory as a whole: published ones have up to 9 GB.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
import itertools
import sys
from typing import Any, BinaryIO, ClassVar

import numpy as np

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.storage import files, images
from xgenmm_jax.data.storage.base import Located, Raw, Refused
from xgenmm_jax.data.storage.json_elements import LINES, Element, elements, of_object
from xgenmm_jax.files import parse_json

PACKED = (".gz", ".zst", ".bz2", ".xz", ".zip")

MOST_REFUSED = 100_000
"""A file of which more is refused is no JSON of objects as a whole."""


@dataclass(frozen=True)
class JsonFiles:
    """Files that match a pattern, each a JSON list of objects, or lines of one object each; a field is a member.

    Lines are those of ".jsonl" and ".ndjson", and of ".json" whose first character is "{"; a list begins with "[".

    images: a folder, by path or URL, in which `Raw.image` looks for the files that records name, or one of
        `xgenmm data join`.
    """

    pattern: str
    images: str | None = None

    PATH_FIELDS: ClassVar[tuple[str, ...]] = ("pattern", "images")

    _wanted: ClassVar[str] = "a list of objects, or one object a line"
    _remedy: ClassVar[str] = " `JsonObject` reads the records that one object holds."

    def shards(self) -> tuple[str, ...]:
        """Raises SourceError where one is compressed."""
        plain = (".json", *LINES)
        paths = files.matching(self.pattern, plain + tuple(end + packed for end in plain for packed in PACKED))
        if packed := [path for path in paths if path.endswith(PACKED)]:
            raise SourceError(
                f"data: '{packed[0]}' is compressed, and records are read at random; unpack it, and let the pattern "
                f"'{self.pattern}' name the unpacked files alone."
            )
        return paths

    def size(self, shard: str) -> int:
        return files.size(shard)

    def locate(self, shard: str) -> Located:
        """Lines that are no object are refused, each with its number.

        Raises SourceError where a list is cut off, or the file holds something else than a list or lines of objects.
        """
        offsets, sizes = array("q"), array("q")
        refused: list[Refused] = []
        with files.stream(shard) as file:
            for element in self._elements(file, shard):
                if not element.reason:
                    offsets.append(element.offset)
                    sizes.append(element.size)
                    continue
                refused.append(Refused(f"{element.kind} {element.number}", element.reason))
                if len(refused) > self._most_refused:
                    break
        if refused and (not offsets or len(refused) > self._most_refused):
            first = refused[0]
            raise SourceError(
                f"data: '{shard}' has {len(offsets):,} records and {len(refused):,} that are none, the first: "
                f"{first.name} is {first.reason}; wanted {self._wanted}."
            )
        arrays = {"offset": np.array(offsets, np.int64), "size": np.array(sizes, np.int64)}
        return Located(len(offsets), arrays, tuple(refused))

    def open(
        self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> "JsonShard":
        """Raises SourceError where one of `fields` is in no record: the file is read until each was seen."""
        if located.records:
            self._check_fields(shard, fields, located.records)
        return JsonShard(shard, located, images.opener(self.images), self._fields_of)

    @property
    def _most_refused(self) -> int:
        return MOST_REFUSED

    def _elements(self, file: BinaryIO, shard: str) -> Iterator[Element]:
        return elements(file, shard)

    def _fields_of(self, text: str) -> Any:
        """The fields of a record by the text of its range."""
        return parse_json(text)

    def _names(self, element: Element) -> Iterator[str]:
        """The names of a record's fields."""
        return iter(element.value)

    def _check_fields(self, shard: str, fields: tuple[str, ...], records: int) -> None:
        missing = dict.fromkeys(fields)
        seen: dict[str, None] = {}
        if not missing:
            return
        with files.stream(shard) as file:
            for element in self._elements(file, shard):
                if element.reason:
                    continue
                for name in self._names(element):
                    missing.pop(name, None)
                    if len(seen) < 50:
                        seen[name[:100]] = None
                if not missing:
                    return
        missing_names, there, asked = (", ".join(map(repr, names)) for names in (missing, seen, fields))
        raise SourceError(
            f"data: no record of '{shard}' has {missing_names}; the fields found: {there or 'nothing'}; the ones "
            f"wanted: {asked}.{self._remedy if records == 1 else ''}"
        )


@dataclass(frozen=True)
class JsonObject(JsonFiles):
    """Files that match a pattern, each one JSON object that holds many records.

    member: the object's member that holds them, a list or an object of records: "questions" of CLEVR's {"info": {...},
        "questions": [{...}, ...]}, "data" of DocVQA's and TextVQA's. "": the object itself holds them, each under a key
        of its own, as GQA's {"07333408": {...}, ...} and OCR-VQA's; a key that stands twice gives two records.
    key: the field in which such a record has its key.
    only: a field and its value, ("split", 1): records that have another value in it are refused, and counted.
    """

    member: str = ""
    key: str = "key"
    only: tuple[str, str | int | bool] | None = None

    _wanted: ClassVar[str] = "one object of records"
    _remedy: ClassVar[str] = ""

    @property
    def _most_refused(self) -> int:
        return MOST_REFUSED if self.only is None else sys.maxsize

    def _elements(self, file: BinaryIO, shard: str) -> Iterator[Element]:
        for element in of_object(file, shard, self.member):
            if element.reason:
                yield element
                continue
            if element.kind == "member" and self.key in element.value:
                raise SourceError(
                    f"data: member {element.number:,} of '{shard}' has a field '{self.key}' of its own; give "
                    "JsonObject another name for its key, key=."
                )
            is_other = self.only is not None and element.value.get(self.only[0]) != self.only[1]
            yield element._replace(reason=f"not of {self.only[0]} {self.only[1]!r}") if is_other else element

    def _fields_of(self, text: str) -> Any:
        if text.startswith("{"):  # an element of a list
            return parse_json(text)
        [(key, value)] = parse_json(f"{{{text}}}").items()
        return {self.key: key} | value if isinstance(value, dict) else value

    def _names(self, element: Element) -> Iterator[str]:
        return itertools.chain([self.key] if element.kind == "member" else [], element.value)


class JsonShard:
    """Objects of one file by number."""

    def __init__(self, path: str, located: Located, image: Callable[[str], LazyImage], fields_of: Callable[[str], Any]):
        self._path, self._located, self._image, self._fields_of = path, located, image, fields_of

    def __len__(self) -> int:
        return self._located.records

    def read(self, index: int) -> Raw:
        """Raises RecordError where something else stands there than when the file was scanned."""
        key = f"{files.base_name(self._path)}[{index}]"
        offset, size = (int(self._located.arrays[field][index]) for field in ("offset", "size"))
        data = files.read(self._path, offset, size)
        try:
            value = self._fields_of(data.decode("utf-8"))
        except ValueError as error:
            raise RecordError(key, f"it is no JSON ({error}); index the source again") from error
        if not isinstance(value, dict):
            raise RecordError(key, f"it is {type(value).__name__}, wanted an object; index the source again")
        return Raw(key, value, self._image)

    def close(self) -> None:
        """Nothing is held open."""
