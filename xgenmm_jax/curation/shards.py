"""One input shard becomes one output shard: a Parquet file, written beside its place and renamed, and its note.

The note is written last; a shard with a note whose file is whole is done. Rows depend on the input shard alone, so the
same command writes the same bytes, in whatever order and however often it was killed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import hashlib
import itertools
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from xgenmm_jax import files
from xgenmm_jax.curation import faces as faces_
from xgenmm_jax.curation.images import SourceImage, Unopened, Unread, opened_shard, read, unopened
from xgenmm_jax.curation.makers import COMMON, IMAGE_TYPE, LeftOutImage, Maker, MakeRows
from xgenmm_jax.data.sharded import ShardedSource

LOG = logging.getLogger(__name__)

DATA, NOTES, DUPLICATES = "data", ".curation", "duplicates"
DUPLICATE, NOT_SAID = "a duplicate", "not said"
ENGINE_FAILED = "the engine failed"
GROUP_ROWS, GROUP_BYTES = 1_000, 32 << 20
"""A row group ends with the row that reaches one of these."""
TRIES = 3
"""Of a shard that fails as a whole."""
LEFT_OUT_NAME = 300
"""Characters of a name or an error in notes."""


@dataclass(frozen=True)
class Options:
    """What does not depend on the maker.

    images: the images' files stand in the rows, else `url` names them. license_field: column of the source that says
    an image's licence. faces: where `face_bboxes` come from. deduplicate: an image that looks like an earlier one is
    left out.
    """

    images: bool = True
    license_field: str = "license"
    faces: faces_.Faces = "source"
    deduplicate: bool = False


class ShardNote(NamedTuple):
    """What became of an input shard.

    images: those with a row and those left out. left_out: image, reason, detail. figures: chart -> bar -> count.
    """

    shard: str
    file: str
    images: int
    rows: int
    bytes: int
    sha256: str
    left_out: tuple[tuple[str, str, str], ...]
    figures: dict[str, dict[str, int]]


class FailedShard(NamedTuple):
    """An input shard that could not be read or written in TRIES tries."""

    shard: str
    error: str


def output_file(number: int) -> str:
    return f"{DATA}/{number:06}.parquet"


def note_file(folder: Path, number: int) -> Path:
    return folder / NOTES / f"{number:06}.json"


def failed_file(folder: Path, number: int) -> Path:
    return folder / NOTES / f"{number:06}.failed.json"


def duplicates_file(folder: Path, number: int) -> Path:
    return folder / NOTES / DUPLICATES / f"{number:06}.json"


def schema_of(maker: Maker, options: Options) -> pa.Schema:
    """The columns of the output."""
    common = dict(COMMON)
    columns = {"uid": common.pop("uid")}
    columns |= {} if options.faces == "none" else {"face_bboxes": pa.list_(pa.list_(pa.float64()))}
    columns |= {name: common.pop(name) for name in ("url", "key")} | dict(maker.columns)
    columns |= {"image": IMAGE_TYPE} if options.images else {}
    return pa.schema([*columns.items(), *common.items()])


class ShardMaker:
    """What one process does; the maker's models are loaded with the first image."""

    def __init__(self, source: ShardedSource, maker: Maker, options: Options, folder: Path):
        self._source, self._maker, self._options, self._folder = source, maker, options, folder
        index = source.source_index()
        self._paths, self._names = index.paths, index.names
        self._make: MakeRows | None = None
        self._find_faces = None
        self._schema = schema_of(maker, options)

    def run(self, number: int) -> None:
        """Makes a shard, trying again where it fails as a whole; then notes that it failed."""
        for attempt in range(1, TRIES + 1):
            try:
                self._write(number)
                return
            except Exception as error:
                said = f"{type(error).__name__}: {' '.join(str(error).split())}"
                LOG.warning("curate: '%s' failed in try %d of %d: %s", self._names[number], attempt, TRIES, said)
        note = FailedShard(self._names[number], said[:1000])
        files.write_whole(failed_file(self._folder, number), json.dumps(note._asdict(), ensure_ascii=False) + "\n")

    def _write(self, number: int) -> None:
        counted = _Counted()
        path = self._folder / output_file(number)
        files.write_whole(path, lambda beside: self._write_rows(beside, number, counted))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        note = ShardNote(
            self._names[number], output_file(number), counted.images, counted.rows, path.stat().st_size, sha256,
            tuple(counted.left_out), {name: dict(sorted(bars.items())) for name, bars in counted.figures.items()},
        )  # fmt: skip
        text = json.dumps(note._asdict(), ensure_ascii=False) + "\n"
        files.write_whole(note_file(self._folder, number), text)

    def _write_rows(self, path: Path, number: int, counted: "_Counted") -> None:
        with pq.ParquetWriter(path, self._schema, compression="zstd") as writer:
            for group in _groups(self._rows(number, counted)):
                writer.write_table(pa.Table.from_pylist(group, schema=self._schema))

    def _rows(self, number: int, counted: "_Counted") -> Iterator[dict[str, Any]]:
        name, failed = self._names[number], 0
        known = self._duplicates(number)
        extra = (self._options.license_field, *self._maker.source_columns)
        shard, refused = opened_shard(self._source, self._paths[number], extra)
        try:
            for one in refused:
                counted.images += 1
                counted.leave_out(*one)
            images = self._images(number, unopened(self._source, shard, name), known, counted)
            while batch := list(itertools.islice(images, self._maker.batch)):
                for image, result in zip(batch, self._results(batch), strict=True):
                    if isinstance(result, LeftOutImage):
                        failed += result.reason == ENGINE_FAILED
                        counted.leave_out(image.key, *result)
                        continue
                    row = self._row(image, result)
                    counted.count(row, self._maker)
                    yield row
        finally:
            shard.close()
        if failed and not counted.rows:
            raise ValueError(f"curate: the engine failed at all {failed:,} images, last {counted.left_out[-1][2]}")

    def _images(
        self, number: int, of_shard: Iterable[Unopened | Unread], duplicates: dict[int, str], counted: "_Counted"
    ) -> Iterator[SourceImage]:
        for ordinal, one in enumerate(of_shard):
            counted.images += 1
            if ordinal in duplicates:
                assert isinstance(one, Unopened), "its pixels were hashed"
                counted.leave_out(one.key, DUPLICATE, f"it looks like {duplicates[ordinal]}")
                continue
            got = read(one, number, ordinal) if isinstance(one, Unopened) else one
            if isinstance(got, Unread):
                counted.leave_out(*got)
            elif (refusal := self._maker.refusal(got.pixels.size)) is not None:
                counted.leave_out(got.key, *refusal)
            else:
                yield got

    def _results(self, batch: list[SourceImage]) -> list[Any]:
        if self._make is None:
            self._make = self._maker.open()
        try:
            return list(self._make(batch))
        except (MemoryError, OSError):
            raise
        except Exception as error:
            if len(batch) == 1:
                said = f"{type(error).__name__}: {' '.join(str(error).split())}"
                return [LeftOutImage(ENGINE_FAILED, said[:LEFT_OUT_NAME])]
            # One of them is to blame.
            return [result for image in batch for result in self._results([image])]

    def _row(self, image: SourceImage, values: dict[str, Any]) -> dict[str, Any]:
        license_said = image.columns.get(self._options.license_field)
        row = {
            "uid": image.uid,
            "url": image.url,
            "key": image.number,
            "license": license_said if isinstance(license_said, str) else None,
            "__index_level_0__": image.ordinal,
            **values,
        }
        if self._options.images:
            row["image"] = {"bytes": image.data, "path": image.key.rpartition("/")[2]}
        if self._options.faces != "none":
            if self._find_faces is None:
                self._find_faces = faces_.finder(self._options.faces)
            row["face_bboxes"] = self._find_faces(image)
        return row

    def _duplicates(self, number: int) -> dict[int, str]:
        """Ordinal of an image that is left out -> what it looks like."""
        if not self._options.deduplicate:
            return {}
        value = files.read_json(duplicates_file(self._folder, number))
        return {int(ordinal): str(first) for ordinal, first in value.items()}


class _Counted:
    """Of a shard while it is made."""

    def __init__(self):
        self.images = self.rows = 0
        self.left_out: list[tuple[str, str, str]] = []
        self.figures: dict[str, Counter[str]] = {}

    def leave_out(self, image: str, reason: str, detail: str) -> None:
        self.left_out.append((image[:LEFT_OUT_NAME], reason, detail[:LEFT_OUT_NAME]))

    def count(self, row: dict[str, Any], maker: Maker) -> None:
        self.rows += 1
        figures = {"licences": (row["license"] or NOT_SAID,), **maker.figures(row)}
        for name, bars in figures.items():
            self.figures.setdefault(name, Counter()).update(bars)


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows of one row group."""
    group, size = [], 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"]) if "image" in row else 0
        if len(group) >= GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
