"""JSON files: a record is an object of a list or of a line, read by its range.

A file is scanned once for where its objects lie and is never in memory as a whole: published ones have up to 9 GB.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.storage import files, images
from xgenmm_jax.data.storage.base import Located, Raw, Refused
from xgenmm_jax.data.storage.json_elements import LINES, elements
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
            for element in elements(file, shard):
                if not element.reason:
                    offsets.append(element.offset)
                    sizes.append(element.size)
                    continue
                refused.append(Refused(f"{element.kind} {element.number}", element.reason))
                if len(refused) > MOST_REFUSED:
                    break
        if refused and (not offsets or len(refused) > MOST_REFUSED):
            first = refused[0]
            raise SourceError(
                f"data: '{shard}' has {len(offsets):,} records and {len(refused):,} that are none, the first: "
                f"{first.name} is {first.reason}; wanted a list of objects, or one object a line."
            )
        arrays = {"offset": np.array(offsets, np.int64), "size": np.array(sizes, np.int64)}
        return Located(len(offsets), arrays, tuple(refused))

    def open(
        self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> "JsonShard":
        """Raises SourceError where one of `fields` is in no record: the file is read until each was seen."""
        if located.records:
            _check_fields(shard, fields)
        return JsonShard(shard, located, images.opener(self.images))


def _check_fields(shard: str, fields: tuple[str, ...]) -> None:
    missing = dict.fromkeys(fields)
    seen: dict[str, None] = {}
    if not missing:
        return
    with files.stream(shard) as file:
        for element in elements(file, shard):
            if element.reason:
                continue
            for name in element.value:
                missing.pop(name, None)
                if len(seen) < 50:
                    seen[name[:100]] = None
            if not missing:
                return
    missing_names, there, asked = (", ".join(map(repr, names)) for names in (missing, seen, fields))
    raise SourceError(
        f"data: no record of '{shard}' has {missing_names}; the fields found: {there or 'nothing'}; the ones wanted: "
        f"{asked}."
    )


class JsonShard:
    """Objects of one file by number."""

    def __init__(self, path: str, located: Located, image: Callable[[str], LazyImage]):
        self._path, self._located, self._image = path, located, image

    def __len__(self) -> int:
        return self._located.records

    def read(self, index: int) -> Raw:
        """Raises RecordError where something else stands there than when the file was scanned."""
        key = f"{files.base_name(self._path)}[{index}]"
        offset, size = (int(self._located.arrays[field][index]) for field in ("offset", "size"))
        data = files.read(self._path, offset, size)
        try:
            value = parse_json(data.decode("utf-8"))
        except ValueError as error:
            raise RecordError(key, f"it is no JSON ({error}); index the source again") from error
        if not isinstance(value, dict):
            raise RecordError(key, f"it is {type(value).__name__}, wanted an object; index the source again")
        return Raw(key, value, self._image)

    def close(self) -> None:
        """Nothing is held open."""
