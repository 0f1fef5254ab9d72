"""Tars of samples, as webdataset and img2dataset write them: a sample's members stand together, named KEY.SUFFIX.

A tar is walked once for where its samples lie; after that a sample is one read of one range, in which the members'
headers are read again. Nothing is ever written to a disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import io
import tarfile
from typing import ClassVar, NamedTuple

import numpy as np

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.storage import files, tar_tables
from xgenmm_jax.data.storage.base import Located, Raw, Refused
from xgenmm_jax.files import without_surrogates

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2")
"""Of the formats that are read (`image_files.FORMATS`). `curation.images.Images` looks for them in this order, which
is an option that indexes are known by."""
SUFFIXES = (*IMAGE_SUFFIXES, "txt", "json", "cls", "pdf", "ocr", "npy")
"""Where a key has dots, a name is split at the last of these suffixes; else at its first dot, as webdataset does.
"arXiv_src_1003_wds/astro-ph.0405083.json" is the json of "astro-ph.0405083"."""

MOST_READ_BYTES = 1 << 20
"""Of a member that is read while a tar is walked."""

MOST_SAMPLE_BYTES = 256 << 20
"""Of a sample, which is read in one piece; a larger one cannot be used."""

_BLOCK = 512


@dataclass(frozen=True)
class Tars:
    """Tars that match a pattern, "data/{0000..0999}.tar"; a sample's fields are its members' bytes by suffix.

    table: img2dataset's table lies beside each tar. Samples are measured by it, without reading the images, and keys
        that have failed are counted (`tar_tables.py`).
    """

    pattern: str
    table: bool = False

    PATH_FIELDS: ClassVar[tuple[str, ...]] = ("pattern",)

    def shards(self) -> tuple[str, ...]:
        return files.matching(self.pattern, (".tar",))

    def size(self, shard: str) -> int:
        return files.size(shard)

    def locate(self, shard: str) -> Located:
        """Raises SourceError where the tar is cut off, or is none, or its table is of another tar."""
        offsets, sizes, refused, keys = [], [], [], []
        with files.stream(shard) as file:
            for sample in _samples(file, shard, refused):
                offsets.append(sample.offset)
                sizes.append(sample.size)
                keys.append(sample.key)
        arrays = {"offset": np.array(offsets, np.int64), "size": np.array(sizes, np.int64)}
        if self.table:
            arrays["key"] = tar_tables.hashes(keys)
            table = tar_tables.read(shard)
            tar_tables.check(table, shard, arrays["key"])
            refused += table.refused
        return Located(len(offsets), arrays, tuple(refused))

    def open(self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()) -> "TarShard":
        """Raises SourceError where one of `fields` is in no sample: the tar is read until each was seen.

        Samples with a "json" pass: a reader may find its fields in there.
        """
        missing, members = set(fields), set()
        for number in range(located.records if missing else 0):
            offset, size = (int(located.arrays[name][number]) for name in ("offset", "size"))
            try:
                members |= read_sample(shard, offset, size, files.base_name(shard)).fields.keys()
            except RecordError:
                continue  # a damaged one is counted when its turn comes
            missing -= members
            if not missing or "json" in members:
                break
        if missing and members and "json" not in members:
            raise SourceError(
                f"data: no sample of '{shard}' has {', '.join(map(repr, sorted(missing)))}; the members found: "
                f"{', '.join(map(repr, sorted(members)))}; the ones wanted: {', '.join(map(repr, fields))}."
            )
        return (TabledTarShard if self.table else TarShard)(shard, located)


class TarShard:
    """Samples of one tar by number."""

    def __init__(self, path: str, located: Located):
        self._path, self._located = path, located

    def __len__(self) -> int:
        return self._located.records

    def read(self, index: int) -> Raw:
        """Raises RecordError where the range is unreadable, or has other members than when the tar was walked."""
        name = f"{files.base_name(self._path)}[{index}]"
        offset, size = (int(self._located.arrays[field][index]) for field in ("offset", "size"))
        return read_sample(self._path, offset, size, name)

    def close(self) -> None:
        """Nothing is held open."""


def read_sample(path: str, offset: int, size: int, name: str) -> Raw:
    """The sample in a range of a tar. name: what errors call it.

    Raises RecordError where the range is unreadable, too large or no sample, SourceError where the tar is gone.
    """
    if size > MOST_SAMPLE_BYTES:
        raise RecordError(name, f"its members have {size:,} bytes, more than {MOST_SAMPLE_BYTES:,}; scale them down")
    try:
        data = files.read(path, offset, size)
    except SourceError:
        raise
    except ValueError as error:
        raise RecordError(name, error) from error
    try:
        [sample] = _samples(io.BytesIO(data), name, [], suffixes_read=None)
    except (ValueError, tarfile.TarError) as error:
        raise RecordError(name, f"it is no sample of a tar ({error}); index the source again") from error
    # A name need not be UTF-8; ids and fields are, as they are written into files.
    members = {without_surrogates(suffix): data for suffix, data in sample.members.items()}
    return Raw(f"{files.base_name(path)}/{without_surrogates(sample.key)}", members)


class TabledTarShard(TarShard):
    """Samples of one tar that has img2dataset's table beside it."""

    def without_pixels(self, fields: tuple[str, ...]) -> tar_tables.TableShard:
        """Of the tar the first sample alone is read, for its members' suffixes and the columns of its json."""
        table = tar_tables.read(self._path, (*fields, tar_tables.CAPTION))
        keys = self._located.arrays.get("key")
        if keys is None:  # walked before its source had table=True
            keys = Tars(self._path, table=True).locate(self._path).arrays["key"]
        tar_tables.check(table, self._path, keys)
        try:
            first = self.read(0).fields if len(self) else {}
        except RecordError as error:
            raise SourceError(str(error)) from error
        return tar_tables.TableShard(self._path, table, first, fields)


class Sample(NamedTuple):
    """Where a sample lies, in bytes. members: those that were read. suffixes: of all of its members."""

    key: str
    offset: int
    size: int
    members: dict[str, bytes]
    suffixes: frozenset[str]


def walk(path: str, suffixes_read: tuple[str, ...] = ()) -> Iterator[Sample]:
    """The samples of a tar, of which the members with these suffixes are read, up to MOST_READ_BYTES of each.

    Raises SourceError where the tar is cut off, or is none.
    """
    with files.stream(path) as file:
        yield from _samples(file, path, [], suffixes_read)


def _samples(
    file: io.IOBase, name: str, refused: list[Refused], suffixes_read: tuple[str, ...] | None = ()
) -> Iterator[Sample]:
    """The samples of a tar in their order; members that are refused are no part of any.

    suffixes_read: of members that are read; None: it is the range of one sample, of which all are.
    """
    is_part = suffixes_read is None
    key, first, end, stop, members = None, 0, 0, 0, {}
    suffixes: set[str] = set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                stop = tar.offset  # behind what is stored: a sparse file's size is another
                reason = _why_not(member)
                if reason is not None:
                    refused.append(Refused(member.name[:300], reason))
                    continue
                member_key, suffix = split(member.name)
                if member_key != key or suffix in suffixes:
                    if key is not None:
                        yield Sample(key, first, end - first, members, frozenset(suffixes))
                    key, first, members, suffixes = member_key, member.offset, {}, set()
                suffixes.add(suffix)
                end = stop
                if is_part or (suffix in suffixes_read and member.size <= MOST_READ_BYTES):
                    members[suffix] = tar.extractfile(member).read()
                tar.members = []  # tarfile would remember every member of a large tar
            if not is_part:
                _check_end(file, stop, name)
    except (tarfile.TarError, RecursionError) as error:  # it recurses into headers of long names
        raise SourceError(f"data: '{name}' is no whole tar ({error}); copy it again.") from error
    if key is not None:
        yield Sample(key, first, end - first, members, frozenset(suffixes))


def _why_not(member: tarfile.TarInfo) -> str | None:
    """Why a member is no file of a sample."""
    if member.issym() or member.islnk():
        return "a link"
    if member.isdir():
        return "a folder"
    if not member.isreg():
        return "a device"
    if member.issparse():  # a few bytes may stand for terabytes
        return "a sparse file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "a name that leads out of its folder"
    if "." not in member.name.rsplit("/", 1)[-1].lstrip("."):
        return "a name without a suffix"
    return None


def _check_end(file: io.IOBase, end: int, name: str) -> None:
    """Raises SourceError unless a block of zeros stands behind the last member, as at the end of every whole tar."""
    file.seek(end)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise SourceError(f"data: '{name}' ends behind {end:,} bytes without the end mark of a tar; copy it again.")


def split(name: str) -> tuple[str, str]:
    """Key and suffix of a member: "00012/a.seg.png" -> ("00012/a", "seg.png"), "astro-ph.04.json" -> (.., "json")."""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    head, _, last = base.rpartition(".")
    has_number = any(part[:1].isdigit() for part in head.split(".")[1:])
    if has_number and last.lower() in SUFFIXES:
        stem, suffix = head, last
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()
