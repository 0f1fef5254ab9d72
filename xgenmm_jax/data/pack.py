"""Packing a source: its records as a reader makes them, with their images as they are, in shards of our own.

Each shard of the source becomes one of ours, or several where it is large, so that shards and order stay. A record that
cannot be read is left out and listed. What a kill leaves is gone on with: each source shard has a note when it is done.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
from pathlib import Path
from typing import NamedTuple

from xgenmm_jax import files
from xgenmm_jax.data.errors import LOST_PAGE, UNREADABLE, SourceError, is_of_a_record, reason_of
from xgenmm_jax.data.images import encoded
from xgenmm_jax.data.index import manifest as manifest_
from xgenmm_jax.data.index.measure import READ_AHEAD, THREADS
from xgenmm_jax.data.processes import Workers
from xgenmm_jax.data.readers.base import every_record
from xgenmm_jax.data.readers.records import ProjectRecords, encode_choices
from xgenmm_jax.data.records import Caption, images_of
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage import array_record
from xgenmm_jax.data.storage.base import Shard
from xgenmm_jax.data.storage.files import is_remote
from xgenmm_jax.data.storage.record_shards import ArrayRecords

SHARD_RECORDS, SHARD_BYTES = 10_000, 10**9
"""A shard ends with the record that reaches one of these."""
NOTES = ".packed"
"""Folder of a note for each source shard that is done, and of what is packed."""
FROM_FILE, BAD_FILE, CHECKSUMS_FILE, LOCK_FILE = "from.json", "bad.jsonl", "checksums.json", "lock"
SUFFIX = ".array_record"

Progress = Callable[[str, int, int], None]


class Part(NamedTuple):
    """One of our shards."""

    name: str
    records: int
    bytes: int
    sha256: str


class PackedShard(NamedTuple):
    """What became of a source shard. bad: record, reason and what is wrong, also of what the storage refused."""

    shard: str
    parts: tuple[Part, ...]
    bad: tuple[tuple[str, str, str], ...]


class Packed(NamedTuple):
    """What a folder holds now. new: source shards that were packed now; bad: by reason, with the first record."""

    shards: int
    new: int
    parts: int
    records: int
    bytes: int
    bad: dict[str, tuple[int, str]]


def packed_source(folder: str | Path, name: str = "") -> ShardedSource:
    """The source that a packed folder is."""
    return ShardedSource(ArrayRecords(f"{folder}/*{SUFFIX}"), ProjectRecords(), name)


def pack_source(
    source: ShardedSource,
    folder: Path,
    processes: int = 1,
    shard_records: int = SHARD_RECORDS,
    progress: Progress | None = None,
) -> Packed:
    """Writes the records of a source into a folder: array_record files, `shards.json`, checksums.json, bad.jsonl.

    The folder's files are refused by `ArrayRecords` until all are there.

    Raises ValueError where the folder holds something else or another process writes to it, SourceError where a shard
    cannot be read or written.
    """
    if shard_records < 1:
        raise ValueError(f"data: shards of {shard_records} records; wanted 1 or more.")
    index = source.source_index()
    if any(not is_remote(path) and Path(path).resolve().parent == folder.resolve() for path in index.paths):
        raise ValueError(f"data: '{folder}' holds the source; give another folder.")
    is_new = not (folder / NOTES / FROM_FILE).is_file()
    if is_new and folder.is_dir() and (strays := sorted({path.name for path in folder.iterdir()} - {NOTES})):
        raise ValueError(f"data: '{folder}' holds '{strays[0]}', which packing did not write; give a new folder.")
    (folder / NOTES).mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        # What is packed into this folder stays the same until all of it is there.
        described = dataclasses.replace(index.as_it_is(), measured_by={"shard_records": shard_records})
        from_file = folder / NOTES / FROM_FILE
        if is_new:
            files.write_whole(from_file, manifest_.to_json(described))
        before = manifest_.from_json(from_file.read_bytes(), str(from_file), "pack into a new folder")
        text = manifest_.difference(before, described)
        text = text or manifest_.differing_measure(before.measured_by, described.measured_by)
        if text:
            raise ValueError(f"data: '{folder}' was packed from something else: {text}; give a new folder.")
        return _pack(source, folder, index.names, processes, shard_records, progress)


def _pack(
    source: ShardedSource,
    folder: Path,
    names: list[str],
    processes: int,
    shard_records: int,
    progress: Progress | None,
) -> Packed:
    done = {number: shard for number in range(len(names)) if (shard := _noted(folder, number)) is not None}
    left = [number for number in range(len(names)) if number not in done]
    if left or not (folder / array_record.NOTE_FILE).is_file():
        array_record.note_none(folder)
        _delete_leftovers(folder, {part.name for shard in done.values() for part in shard.parts})
    with Workers(processes, Packer, (source, folder, shard_records)) as workers:
        for number, shard in zip(left, workers.map(Packer.pack, left), strict=True):
            done[number] = shard
            if progress is not None:
                progress(f"{source.label}: shards packed", len(done), len(names))
    shards = [done[number] for number in range(len(names))]
    parts = [part for shard in shards for part in shard.parts]
    bad = [(shard.shard, one) for shard in shards for one in shard.bad]
    lines = [
        json.dumps({"record": record, "shard": shard, "reason": reason, "error": error}, ensure_ascii=False)
        for shard, (record, reason, error) in bad
    ]
    files.write_whole(folder / BAD_FILE, "".join(f"{line}\n" for line in lines))
    if not parts:
        first = f", the first: {bad[0][1][0]}: {bad[0][1][2]}" if bad else ""
        raise SourceError(f"data: none of the records of {source.label} can be read ({len(bad):,} bad{first}).")
    files.write_whole(
        folder / CHECKSUMS_FILE, json.dumps({"sha256": {part.name: part.sha256 for part in parts}}, indent=1) + "\n"
    )
    # Last: from now on the shards may be read.
    counts = {Path(path).name: count for path, count in array_record.note_anew(folder / f"*{SUFFIX}")}
    if counts != {part.name: part.records for part in parts}:
        raise SourceError(f"data: '{folder}' holds other shards than were written; delete it and pack again.")
    reasons: dict[str, tuple[int, str]] = {}
    for _, (record, reason, error) in bad:
        count, first = reasons.get(reason, (0, f"{record}: {error}"))
        reasons[reason] = count + 1, first
    records, size = sum(part.records for part in parts), sum(part.bytes for part in parts)
    return Packed(len(shards), len(left), len(parts), records, size, reasons)


def _noted(folder: Path, number: int) -> PackedShard | None:
    """What became of a source shard, where it is done and all of its parts are there."""
    try:
        value = files.read_json(_note_of(folder, number))
        parts = tuple(Part(*part) for part in value["parts"])
        shard = PackedShard(value["shard"], parts, tuple((r, why, e) for r, why, e in value["bad"]))
        is_whole = all((folder / part.name).stat().st_size == part.bytes for part in parts)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return shard if is_whole else None


def _note_of(folder: Path, number: int) -> Path:
    return folder / NOTES / f"{number:06}.json"


def _delete_leftovers(folder: Path, finished: set[str]) -> None:
    """Shards and files half-written of a run that was killed."""
    for directory in (folder, folder / NOTES):
        for path in directory.iterdir():
            if path.name.endswith(array_record.UNFINISHED) or (path.suffix == SUFFIX and path.name not in finished):
                path.unlink()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises ValueError where another process packs into the folder."""
    with (folder / NOTES / LOCK_FILE).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"data: another process packs into '{folder}'; wait for it, or end it.") from error
        except OSError:
            pass  # the file system has no locks
        yield


class Packer:
    """What one process does."""

    def __init__(self, source: ShardedSource, folder: Path, shard_records: int):
        self._source, self._folder, self._shard_records = source, folder, shard_records
        self._index = source.source_index()

    def pack(self, number: int) -> PackedShard:
        """Writes the parts of a source shard, and behind them its note."""
        storage, reader = self._source.storage, self._source.reader
        path, name = self._index.paths[number], self._index.names[number]
        # Not through the index, which would be written beside the source.
        located = storage.locate(path)
        bad = [(one.name, one.reason, "left out of the shard") for one in located.refused]
        shard = storage.open(path, located, reader.fields, reader.optional)
        try:
            parts = tuple(self._parts(number, self._encoded(shard, name, bad)))
        finally:
            shard.close()
        packed = PackedShard(name, parts, tuple(bad))
        files.write_whole(_note_of(self._folder, number), json.dumps(packed._asdict(), ensure_ascii=False) + "\n")
        return packed

    def _parts(self, number: int, records: Iterator[bytes]) -> Iterator[Part]:
        for part in itertools.count():
            first = next(records, None)
            if first is None:
                return
            path = self._folder / f"{number:06}-{part:03}{SUFFIX}"
            count = array_record.write_blobs(path, _up_to(itertools.chain([first], records), self._shard_records))
            yield Part(path.name, count, path.stat().st_size, _sha256(path))

    def _encoded(self, shard: Shard, name: str, bad: list[tuple[str, str, str]]) -> Iterator[bytes]:
        """The records one after the other, READ_AHEAD read at a time."""
        with ThreadPoolExecutor(THREADS, "pack") as pool:
            for start in range(0, len(shard), READ_AHEAD):
                numbers = range(start, min(start + READ_AHEAD, len(shard)))
                for one in pool.map(lambda number: self._record(shard, name, number), numbers):
                    record, of_record = one
                    bad += of_record
                    if record is not None:
                        yield record

    def _record(self, shard: Shard, name: str, number: int) -> tuple[bytes | None, list[tuple[str, str, str]]]:
        """The record, None where it is bad; and what is wrong with it or with pages of it that it is without."""
        reader = self._source.reader
        try:
            raw = shard.read(number)
            records = every_record(reader, raw)
            lost = records[0].lost if isinstance(records[0], Caption) else ()
            choices = [(record, [encoded(image) for image in images_of(record)]) for record in records]
            return encode_choices(choices), [(f"{name}[{number}]", LOST_PAGE, why) for why in lost]
        except Exception as error:
            if not is_of_a_record(error):
                raise
            detail = (str(error).splitlines() or [type(error).__name__])[0]
            return None, [(f"{name}[{number}]", reason_of(error, UNREADABLE), detail)]


def _up_to(records: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Records of one shard."""
    size = 0
    for number, record in enumerate(records, start=1):
        yield record
        size += len(record)
        if number >= most or size >= SHARD_BYTES:
            return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
