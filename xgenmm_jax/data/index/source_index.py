"""The index of one source: its manifest, where records lie in its shards, and the sizes of those that were reached."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import logging

import numpy as np

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.index import manifest as manifest_
from xgenmm_jax.data.index import measure, sizes
from xgenmm_jax.data.index.manifest import Manifest, ShardEntry
from xgenmm_jax.data.index.measure import Measurer
from xgenmm_jax.data.index.sizes import ShardSizes
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.storage import files
from xgenmm_jax.data.storage.base import Located, Refused, Shard, Storage

LOG = logging.getLogger(__name__)

FOLDER = ".index"
COMMAND = "`xgenmm data index`, with the source or the experiment"
THREADS = 16

Progress = Callable[[int, int], None]
"""Told how many of how many shards are done."""


class SourceIndex:
    """What is known of a source's shards; what is not there yet is made and written where it is first asked for.

    folder: where it lies; None is FOLDER beside the shards, named by `label`.
    """

    def __init__(self, storage: Storage, reader: Reader, label: str, folder: str | None = None):
        self.storage, self.reader = storage, reader
        self.paths = storage.shards()
        top = files.common_parent(self.paths)
        self.folder = folder if folder is not None else files.join(files.join(top, FOLDER), label)
        self.names = [path[len(top) :].lstrip("/") for path in self.paths]

    # The manifest.

    def manifest(self) -> Manifest | None:
        """As it was written; None where there is none. Raises SourceError where it is of other data or options."""
        data = files.read_whole(self._file(manifest_.FILE))
        if data is None:
            return None
        written = manifest_.from_json(data, self._file(manifest_.FILE), f"make it again with {COMMAND}")
        shards = tuple(ShardEntry(name, 0, self.storage.size(path), {}) for name, path in self._shards())
        now = self._described(shards)
        if text := manifest_.difference(written, now):
            raise SourceError(
                f"data: the index in '{self.folder}' is not of this source: {text}. Put it back, or make the index "
                f"again with {COMMAND}; name another folder for it (index=) where both are used."
            )
        return written

    def make_manifest(self, progress: Progress | None = None) -> Manifest:
        """Walks every shard that was not walked before, in threads, and writes the manifest."""
        files.delete_unfinished(self.folder)
        with ThreadPoolExecutor(THREADS, "locate") as pool:
            entries = []
            for number, entry in enumerate(pool.map(self._entry, range(len(self.paths)))):
                entries.append(entry)
                if progress is not None:
                    progress(number + 1, len(self.paths))
        manifest = self._described(tuple(entries))
        self._write(manifest_.FILE, manifest_.to_json(manifest))
        return manifest

    def _described(self, shards: tuple[ShardEntry, ...]) -> Manifest:
        path_fields = getattr(self.storage, "PATH_FIELDS", ())
        return Manifest(manifest_.described(self.storage, path_fields), manifest_.described(self.reader), shards, {})

    def _shards(self) -> Sequence[tuple[str, str]]:
        return list(zip(self.names, self.paths, strict=True))

    def _entry(self, number: int) -> ShardEntry:
        located = self.located(number)
        refused: dict[str, int] = {}
        for one in located.refused:
            refused[one.reason] = refused.get(one.reason, 0) + 1
        return ShardEntry(self.names[number], located.records, self.storage.size(self.paths[number]), refused)

    # Where records lie.

    def located(self, number: int) -> Located:
        """Where the records of a shard lie, from the index, or by a walk through the shard."""
        path, file = self.paths[number], self._file(self._name(number, "located"))
        size, data = self.storage.size(path), files.read_whole(file)
        if data is not None:
            arrays, rest = sizes.arrays_from_bytes(data, file)
            if rest["bytes"] == size:
                return Located(rest["records"], arrays, tuple(Refused(*one) for one in rest["refused"]))
        located = self.storage.locate(path)
        if located.arrays or located.refused:
            rest = {"bytes": size, "records": located.records, "refused": [list(one) for one in located.refused]}
            self._write(self._name(number, "located"), sizes.arrays_to_bytes(located.arrays, rest))
        return located

    def open(self, number: int, entry: ShardEntry) -> Shard:
        """A shard for reading.

        Raises SourceError where it lacks a field that the reader wants, or is not the one of the manifest's `entry`.
        """
        if (size := self.storage.size(self.paths[number])) != entry.bytes:
            raise SourceError(
                f"data: '{self.paths[number]}' has {size:,} bytes and had {entry.bytes:,} when it was indexed; copy it "
                f"again, or index its source again with {COMMAND}."
            )
        reader = self.reader
        try:
            return self.storage.open(self.paths[number], self.located(number), reader.fields, reader.optional)
        except SourceError as error:
            raise SourceError(f"{error} (read by {type(self.reader).__name__})") from error

    # Sizes.

    def check_measurer(self, written: Manifest, measurer: Measurer) -> None:
        """Raises SourceError where the index was measured by another tokenizer or chat style."""
        if text := manifest_.differing_measure(written.measured_by, measurer.described()):
            raise SourceError(
                f"data: the index in '{self.folder}' was measured by something else: {text}. Measure again with "
                f"{COMMAND}; name another folder for it (index=) where both are used."
            )

    def start_measuring(self, written: Manifest, measurer: Measurer) -> Manifest:
        """Notes in the manifest what the sizes are measured by."""
        files.delete_unfinished(self.folder)
        if written.measured_by == measurer.described():
            return written
        noted = dataclasses.replace(written, measured_by=measurer.described())
        self._write(manifest_.FILE, manifest_.to_json(noted))
        return noted

    def sizes(self, number: int, noted: Manifest) -> ShardSizes | None:
        """The sizes of a shard; None where it was not measured yet."""
        file = self._file(self._name(number, "sizes"))
        data = files.read_whole(file)
        if data is None:
            return None
        loaded = sizes.from_bytes(data, file, noted.fingerprint)
        if loaded.records != noted.shards[number].records:
            raise SourceError(f"data: '{file}' has {loaded.records} records; delete it and index its source again.")
        return loaded

    def measure(self, number: int, noted: Manifest, measurer: Measurer) -> ShardSizes:
        """Measures a shard and writes its sizes. Restartable: a file is there whole, or not at all."""
        shard = self.open(number, noted.shards[number])
        try:
            loaded = measure.measure_shard(shard, self.reader, measurer)
        finally:
            shard.close()
        self._write(self._name(number, "sizes"), sizes.to_bytes(loaded, noted.fingerprint))
        if loaded.bad:
            LOG.warning("data: %s has %d records that cannot be used", self.names[number], len(loaded.bad))
        return loaded

    def measured(self) -> np.ndarray:
        """Which shards have sizes."""
        there = files.names_in(self.folder)
        return np.array([self._name(number, "sizes") in there for number in range(len(self.paths))], bool)

    def _name(self, number: int, kind: str) -> str:
        return f"{self.names[number].replace('/', '__')}.{kind}.npz"

    def _file(self, name: str) -> str:
        return files.join(self.folder, name)

    def _write(self, name: str, data: bytes) -> None:
        try:
            files.write_whole(self._file(name), data)
        except SourceError as error:
            raise SourceError(
                f"{str(error).rstrip('.')}. It belongs to the index of '{self.reader.label}'; name a folder for it "
                "with index= where the data cannot be written to."
            ) from error
