"""The index of one source: its manifest, where records lie in its shards, and the sizes of those that were reached."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import logging
from typing import Any

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


class SourceIndex:
    """What is known of a source's shards; what is not there yet is made and written where it is first asked for.

    folder: where it lies; None is FOLDER beside the shards, named by `label`.
    """

    def __init__(self, storage: Storage, reader: Reader, label: str, folder: str | None = None):
        self.storage, self.reader = storage, reader
        self.paths = storage.shards()
        top = files.common_parent(self.paths)
        self.folder = folder if folder is not None else files.join(files.join(top, FOLDER), label)
        self.names = [files.below(top, path) for path in self.paths]

    # The manifest.

    def manifest(self) -> Manifest | None:
        """As it was written; None where there is none. Raises SourceError where it is of other data or options."""
        written = self._written()
        if written is None:
            return None
        if text := manifest_.difference(written, self.as_it_is()):
            raise SourceError(
                f"data: the index in '{self.folder}' is not of this source: {text}. Put it back, or make the index "
                f"again with {COMMAND}; name another folder for it (index=) where both are used."
            )
        return written

    def make_manifest(self) -> Manifest:
        """Walks every shard that was not walked before, in threads, and writes the manifest."""
        files.delete_unfinished(self.folder)
        with ThreadPoolExecutor(THREADS, "locate") as pool:
            return self.write_manifest(pool.map(self.entry, range(len(self.paths))))

    def write_manifest(self, entries: Iterable[ShardEntry], measured_by: Mapping[str, Any] | None = None) -> Manifest:
        """Writes the manifest of all shards, given in their order."""
        manifest = dataclasses.replace(self._described(tuple(entries)), measured_by=dict(measured_by or {}))
        self._write(manifest_.FILE, manifest_.to_json(manifest))
        return manifest

    def delete_outdated(self, measured_by: Mapping[str, Any] | None, again: bool = False) -> str | None:
        """Deletes what is not of this source, its reader and what measures it; gives what differed, None if nothing.

        The manifest itself stays until another one is written over it, so what a kill leaves is outdated as before.
        again: everything is, though nothing differs. measured_by: None where nothing is to be measured.
        """
        there = files.names_in(self.folder)
        now, written, why = self.as_it_is(), None, None
        try:
            written = self._written()
        except SourceError as error:
            why = str(error)
        if again:
            why = "as was asked for"
        elif why is None and written is None and any(name.endswith(".sizes.npz") for name in there):
            why = "it has sizes and no manifest that says of what"
        if why is not None or written is None or written.storage != now.storage:
            kinds, of_shards = ("located", "sizes"), set(self.names)
            why = why or (None if written is None else manifest_.difference(written, now))
        else:
            why = manifest_.difference(written, now)
            by = None if measured_by is None else manifest_.differing_measure(written.measured_by, measured_by)
            before = {shard.name: shard.bytes for shard in written.shards}
            # Sizes of other shards stay, unless all of them are outdated.
            changed = {shard.name for shard in now.shards if before.get(shard.name) != shard.bytes}
            gone = before.keys() - set(self.names)
            is_all = written.reader != now.reader or by is not None
            kinds, of_shards = ("sizes",), set(self.names) | gone if is_all else changed | gone
            why = why or by
        if why is not None:
            for name in sorted({self._name(shard, kind) for shard in of_shards for kind in kinds} & there):
                files.remove(self._file(name))
        return why

    def _written(self) -> Manifest | None:
        data = files.read_whole(self._file(manifest_.FILE))
        if data is None:
            return None
        return manifest_.from_json(data, self._file(manifest_.FILE), f"make it again with {COMMAND}")

    def as_it_is(self) -> Manifest:
        """The manifest of the files as they are now, without numbers of records."""
        return self._described(tuple(ShardEntry(name, 0, self.storage.size(path), {}) for name, path in self._shards()))

    def _described(self, shards: tuple[ShardEntry, ...]) -> Manifest:
        path_fields = getattr(self.storage, "PATH_FIELDS", ())
        return Manifest(manifest_.described(self.storage, path_fields), manifest_.described(self.reader), shards, {})

    def _shards(self) -> Sequence[tuple[str, str]]:
        return list(zip(self.names, self.paths, strict=True))

    def entry(self, number: int) -> ShardEntry:
        """What the manifest says of a shard, which is walked where it was not before."""
        located = self.located(number)
        refused: dict[str, int] = {}
        for one in located.refused:
            refused[one.reason] = refused.get(one.reason, 0) + 1
        return ShardEntry(self.names[number], located.records, self.storage.size(self.paths[number]), refused)

    # Where records lie.

    def located(self, number: int) -> Located:
        """Where the records of a shard lie, from the index, or by a walk through the shard."""
        path, file = self.paths[number], self._file(self._name(self.names[number], "located"))
        size, data = self.storage.size(path), files.read_whole(file)
        if data is not None:
            arrays, rest = sizes.arrays_from_bytes(data, file)
            if rest["bytes"] == size:
                return Located(rest["records"], arrays, tuple(Refused(*one) for one in rest["refused"]))
        located = self.storage.locate(path)
        if located.arrays or located.refused:
            rest = {"bytes": size, "records": located.records, "refused": [list(one) for one in located.refused]}
            self._write(self._name(self.names[number], "located"), sizes.arrays_to_bytes(located.arrays, rest))
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
        reader, located = self.reader, self.located(number)
        self._check_records(number, located.records, entry)
        try:
            return self.storage.open(self.paths[number], located, reader.fields, reader.optional)
        except SourceError as error:
            raise SourceError(f"{error} (read by {type(self.reader).__name__})") from error

    def _check_records(self, number: int, records: int, entry: ShardEntry) -> None:
        if records != entry.records:
            raise SourceError(
                f"data: '{self.paths[number]}' has {records:,} records and {entry.records:,} in the manifest in "
                f"'{self.folder}'; make all of it again with `xgenmm data index --again`."
            )

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
        file = self._file(self._name(self.names[number], "sizes"))
        data = files.read_whole(file)
        if data is None:
            return None
        loaded = sizes.from_bytes(data, file, noted.fingerprint)
        self._check_records(number, loaded.records, noted.shards[number])
        return loaded

    def measure(self, number: int, noted: Manifest, measurer: Measurer) -> ShardSizes:
        """Measures a shard and writes its sizes. Restartable: a file is there whole, or not at all."""
        shard = self.open(number, noted.shards[number])
        try:
            loaded = measure.measure_shard(shard, self.reader, measurer)
        except Exception as error:
            error.add_note(f"Raised while '{self.paths[number]}' was measured.")
            raise
        finally:
            shard.close()
        self._write(self._name(self.names[number], "sizes"), sizes.to_bytes(loaded, noted.fingerprint))
        if loaded.bad:
            first = min(loaded.bad)
            LOG.warning(
                "data: %s has %d records that cannot be used, the first %s[%d]: %s",
                self.names[number], len(loaded.bad), self.names[number], first, ": ".join(loaded.bad[first]),
            )  # fmt: skip
        return loaded

    def measured(self) -> np.ndarray:
        """Which shards have sizes."""
        there = files.names_in(self.folder)
        return np.array([self._name(name, "sizes") in there for name in self.names], bool)

    def _name(self, shard: str, kind: str) -> str:
        return f"{shard.replace('%', '%25').replace('/', '%2F')}.{kind}.npz"

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
