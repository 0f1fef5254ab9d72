"""The URLs that a source's records name, each once with its SHA-256, as a list that a downloader reads.

Nothing is fetched here. How the list is fetched and what came back is joined: docs/data.md.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from xgenmm_jax.data.errors import is_of_a_record
from xgenmm_jax.data.readers.base import Reader, reading
from xgenmm_jax.data.readers.interleaved import Interleaved
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.sorting import MOST_BYTES, HashSort
from xgenmm_jax.data.storage.base import Shard
from xgenmm_jax.files import whole_folder

FILE_URLS = 1_000_000
"""URLs of one file of a list: img2dataset has one in memory at a time."""
MOST_URL_BYTES = 8192
"""A longer one is left out: servers refuse it."""
READ_AHEAD, THREADS = 256, 8

SCHEMA = pa.schema([("url", pa.string()), ("hash", pa.string())])

Progress = Callable[[str, int, int], None]
"""Told what is done, for how many shards, of how many."""


class ListedUrls(NamedTuple):
    """What a list holds.

    records: of the source. without: of these, records that name no URL or cannot be read. named: URLs that they name,
    `left_out` not counted, by reason. urls: different ones, those of the list.
    """

    records: int
    without: int
    named: int
    left_out: dict[str, int]
    urls: int
    files: int


def list_urls(
    source: ShardedSource,
    folder: Path,
    progress: Progress | None = None,
    file_urls: int = FILE_URLS,
    most_bytes: int = MOST_BYTES,
) -> ListedUrls:
    """Writes the URLs of the images that a source's reader asks its storage for, sorted by hash, into a new folder.

    The files are Parquet with the columns `url` and `hash`, the SHA-256 of the URL (UTF-8) in hexadecimal digits. URLs
    of one host are spread over the list so. The folder appears whole. Images whose bytes stand in their record are not
    asked for; those that the options of the reader leave out by their place in a document are, as an earlier one may be
    missing.

    most_bytes: memory that URLs take. What does not fit is kept on the disk, beside the folder.

    Raises ValueError where the folder is there, SourceError where a shard cannot be read.
    """
    if folder.exists():
        raise ValueError(f"data: '{folder}' is there; name a new folder for the list, or delete it.")
    reader, index = source.reader, source.source_index()
    manifest = index.manifest() or index.make_manifest()
    if isinstance(reader, Interleaved):
        # Every image is asked for: the first that is missing must not end its document.
        reader = dataclasses.replace(reader, missing="leave_out")
    records = without = named = 0
    left_out: Counter[str] = Counter()
    with whole_folder(folder, replace=True) as partial:
        sorter = HashSort(partial / "sorting", most_bytes)
        for number, entry in enumerate(manifest.shards):
            shard = index.open(number, entry)
            try:
                for names in _names(shard, reader):
                    records += 1
                    urls = [url for url in names if _is_url(url)]
                    without += not urls
                    for url in urls:
                        if reason := _why_not(url):
                            left_out[reason] += 1
                            continue
                        named += 1
                        encoded = url.encode()
                        sorter.add(hashlib.sha256(encoded).digest(), encoded)
            finally:
                shard.close()
            if progress is not None:
                progress(f"{source.label}: shards read", number + 1, len(manifest.shards))
        if not named:
            raise ValueError(
                f"data: none of the {records:,} records of {source.label} names the URL of an image, as "
                f"{type(source.reader).__name__} reads them; check its options."
            )
        counts = [_write(partial / f"{part:05}.parquet", items) for part, items in _parts(sorter.sorted(), file_urls)]
    return ListedUrls(records, without, named, dict(left_out), sum(counts), len(counts))


def _names(shard: Shard, reader: Reader) -> Iterator[list[str]]:
    """Of each record the names of images that the reader asks for."""
    with ThreadPoolExecutor(THREADS, "urls") as pool:
        for start in range(0, len(shard), READ_AHEAD):
            numbers = range(start, min(start + READ_AHEAD, len(shard)))
            yield from pool.map(lambda number: _names_of(shard, number, reader), numbers)


def _names_of(shard: Shard, number: int, reader: Reader) -> list[str]:
    names: list[Any] = []

    def note(name: str) -> LazyImage:
        names.append(name)
        raise ValueError(f"image: '{name[:300]}' is to be fetched")

    try:
        raw = dataclasses.replace(shard.read(number), image=note)
        with reading(reader, raw):
            reader.read(raw, 0)
    except Exception as error:
        if not is_of_a_record(error):
            raise
    return [name for name in names if isinstance(name, str)]


def _is_url(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def _why_not(url: str) -> str | None:
    """Why a URL is not listed, one of few reasons."""
    try:
        length = len(url.encode())
    except UnicodeEncodeError:
        return "no UTF-8"
    return f"more than {MOST_URL_BYTES:,} bytes" if length > MOST_URL_BYTES else None


def _parts(items: Iterator[tuple[bytes, bytes]], count: int) -> Iterator[tuple[int, Iterable[tuple[bytes, bytes]]]]:
    for part in itertools.count():
        first = next(items, None)
        if first is None:
            return
        yield part, itertools.chain([first], itertools.islice(items, count - 1))


def _write(path: Path, items: Iterable[tuple[bytes, bytes]]) -> int:
    """Writes a file of a list; gives how many URLs it holds."""
    count = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for batch in _batched(items, 50_000):
            columns = [[url.decode() for _, url in batch], [key.hex() for key, _ in batch]]
            writer.write_table(pa.table(columns, schema=SCHEMA))
            count += len(batch)
    return count


def _batched(items: Iterable[tuple[bytes, bytes]], count: int) -> Iterator[list[tuple[bytes, bytes]]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, count)):
        yield batch
