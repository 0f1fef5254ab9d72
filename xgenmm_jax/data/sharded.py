"""A source of any size: storage, reader and an index of sizes, by which rows are planned without reading a record."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import itertools
from pathlib import Path
import threading

from jaxtyping import Int64
import numpy as np

from xgenmm_jax.data.errors import RecordError, Skip, SourceError
from xgenmm_jax.data.index import shapes as shapes_
from xgenmm_jax.data.index import sizes as sizes_
from xgenmm_jax.data.index.manifest import Manifest
from xgenmm_jax.data.index.measure import Measurer
from xgenmm_jax.data.index.shapes import Shapes
from xgenmm_jax.data.index.sizes import ShardSizes
from xgenmm_jax.data.index.source_index import SourceIndex
from xgenmm_jax.data.readers.base import Reader, reading
from xgenmm_jax.data.records import Record
from xgenmm_jax.data.rows.order import Shards
from xgenmm_jax.data.storage import images
from xgenmm_jax.data.storage.base import Shard, Storage

MEASURE_BEFORE = "of several hosts none measures, so run `xgenmm data index EXPERIMENT` on one machine first"
MOST_OPEN_SHARDS = 64
"""Shards of a source that a process holds open."""
THREADS = 16
"""That read files of sizes."""
MOST_SIZES_BYTES = 256 * 2**20
"""Memory of the sizes of one source that are remembered; a window at the paper's size touches 77 MB of all sources."""


@dataclass(frozen=True)
class ShardedSource:
    """Records of a storage as a reader understands them.

    name: in metrics, messages and the index; "" is the reader's label. group_shards: shards whose records are mixed
    with each other within an epoch (docs/design.md, "Order of rows"). held_out_shards: the last so many shards, by
    name, are kept from training. index: folder of manifest and sizes, where they cannot lie beside the data.
    """

    storage: Storage
    reader: Reader
    name: str = ""
    group_shards: int = 16
    held_out_shards: int = 0
    index: str | None = None

    PATH_FIELDS = ("index",)

    def __post_init__(self):
        if self.group_shards < 1 or self.held_out_shards < 0:
            raise ValueError(
                f"data: group_shards {self.group_shards}, held_out_shards {self.held_out_shards}; wanted 1 or more "
                "and 0 or more."
            )
        if self.label in (".", "..") or "/" in self.label or "\0" in self.label or len(self.label) > 200:
            raise ValueError(
                f"data: a source has the name {self.label[:100]!r}, and its index a folder of that name; give a plain "
                "name, without '/' and of at most 200 characters, as name='chartqa'."
            )

    @property
    def label(self) -> str:
        return self.name or self.reader.label

    def source_index(self) -> SourceIndex:
        """Its index, which may be empty. Raises SourceError where the storage has no shard."""
        return SourceIndex(self.storage, self.reader, self.label, self.index)

    def open(self, may_measure: bool = True) -> "ShardedRecords":
        """Reads the manifest, or walks the shards and writes it where there is none.

        may_measure: whether the index may be written. False with several hosts, which would all do the same work.

        Raises SourceError where the manifest is of other data, a shard cannot be read, the folder of its images is not
        there, or the index lacks something that may not be written.
        """
        # An index of an earlier run has all sizes: the folder would be missed at each record alone. A storage of a
        # user's may have something else of this name.
        if isinstance(folder := getattr(self.storage, "images", None), str):
            images.check_folder(folder)
        index = self.source_index()
        manifest = index.manifest()
        if manifest is None and not may_measure:
            raise SourceError(f"data: {self.label} has no index in '{index.folder}'; {MEASURE_BEFORE}.")
        return ShardedRecords(self, index, manifest or index.make_manifest(), may_measure)

    def files(self) -> list[Path]:
        """None: the manifest says what the records are, see `ShardedRecords.identity`."""
        return []


def check_own_indexes(sources: Iterable[ShardedSource]) -> None:
    """Raises ValueError where the indexes of two sources that differ would lie in one folder."""
    alike: dict[tuple[str | None, str], list[ShardedSource]] = {}
    for source in sources:
        group = alike.setdefault((source.index, source.label if source.index is None else ""), [])
        if source not in group:
            group.append(source)
    for group in alike.values():
        indexes = [source.source_index() for source in group] if len(group) > 1 else []
        for one, other in itertools.combinations(indexes, 2):
            if one.folder == other.folder and one.as_it_is() != other.as_it_is():
                raise ValueError(
                    f"data: two sources that differ have one index, '{one.folder}'; give each another "
                    f"{'name (name=)' if group[0].index is None else 'folder (index=)'}."
                )


class ShardedRecords:
    """The records of an opened source by number: shards in the order of their names, one after the other.

    held_out shards count too, so that a record's number does not depend on them.
    """

    def __init__(self, source: ShardedSource, index: SourceIndex, manifest: Manifest, may_measure: bool = True):
        self._may_measure = may_measure
        self.name, self._source, self._index, self._manifest = source.label, source, index, manifest
        self.ends = np.cumsum([shard.records for shard in manifest.shards], dtype=np.int64)
        held_out = np.arange(len(self.ends)) >= len(self.ends) - source.held_out_shards
        self.shards = Shards(self.ends, held_out, source.group_shards)
        self.left_out = tuple(self._refused())
        self._sizes_lock, self._shards_lock = threading.Lock(), threading.Lock()
        self._open_shards: OrderedDict[int, Shard] = OrderedDict()
        self._sizes: OrderedDict[int, ShardSizes] = OrderedDict()
        self._noted: Manifest | None = None

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def identity(self) -> str:
        """The same for the same records in the same order, wherever they lie."""
        return self._manifest.identity

    def record(self, index: int, rng: np.random.Generator) -> Record:
        """Raises RecordError where the record cannot be read, SourceError where its shard cannot."""
        shard_number, number = self.position(index)
        raw = self._shard(shard_number).read(number)
        try:
            with reading(self._source.reader, raw):
                count = self._source.reader.choices(raw)
                return self._source.reader.read(raw, int(rng.integers(count)) if count > 1 else 0)
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError(raw.key, error) from error

    def position(self, index: int) -> tuple[int, int]:
        """The shard of a record and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = int(np.searchsorted(self.ends, index, side="right"))
        return shard, index - (int(self.ends[shard - 1]) if shard else 0)

    def label_of(self, index: int) -> str:
        """What a record is called before it is read: "00012.tar[345]"."""
        shard, number = self.position(index)
        return f"{self._index.names[shard]}[{number}]"

    def shard_name(self, index: int) -> str:
        return self._index.names[self.position(index)[0]]

    def shapes_of(
        self, records: Int64[np.ndarray, " n"], rng_of: Callable[[int], np.random.Generator], measurer: Measurer
    ) -> tuple[Shapes, list[Skip]]:
        """The shapes of these records without reading one, and why those that are BAD are.

        rng_of: the generator of the draw at a place in `records`, the one that `record` gets.
        Shards that have no sizes yet are measured. Raises SourceError where that fails, or may not be done, or the
        sizes are of another tokenizer.
        """
        shards = np.searchsorted(self.ends, records, side="right")
        parts, indices, skips = [], [], []
        self._read_sizes(np.unique(shards).tolist(), measurer)
        for shard in np.unique(shards).tolist():
            chosen = np.flatnonzero(shards == shard)
            numbers = records[chosen] - (self.ends[shard - 1] if shard else 0)
            of_shard = self._sizes_of(shard, measurer)
            counts = sizes_.choice_counts(of_shard, numbers)
            choices = np.zeros(len(chosen), np.int64)
            for index in np.flatnonzero(counts > 1).tolist():
                choices[index] = rng_of(int(chosen[index])).integers(int(counts[index]))
            parts.append(sizes_.choose(of_shard, numbers, choices))
            indices.append(chosen)
            for number in set(numbers.tolist()) & of_shard.bad.keys():
                name = f"{self._index.names[shard]}[{number}]"
                times = int((numbers == number).sum())
                skips.append(Skip(self.name, name, *of_shard.bad[number], times, shard=self._index.names[shard]))
        inverse = np.argsort(np.concatenate(indices)) if indices else np.empty(0, np.int64)
        return shapes_.join(parts).take(inverse), skips

    def _read_sizes(self, numbers: list[int], measurer: Measurer) -> None:
        """Reads the sizes of shards that are not remembered, several at a time: of a bucket each is a request."""
        with self._sizes_lock:
            noted = self._manifest_of(measurer)
            missing = [number for number in numbers if number not in self._sizes]
            with ThreadPoolExecutor(THREADS, "sizes") as pool:
                read = pool.map(lambda number: self._index.sizes(number, noted), missing)
                for number, loaded in zip(missing, read, strict=True):
                    if loaded is not None:
                        self._remember(number, loaded)

    def _sizes_of(self, number: int, measurer: Measurer) -> ShardSizes:
        with self._sizes_lock:
            noted = self._manifest_of(measurer)
            if number not in self._sizes:
                loaded = self._index.sizes(number, noted)
                if loaded is None and not self._may_measure:
                    raise SourceError(self._lacking([number]))
                self._remember(number, loaded or self._index.measure(number, noted, measurer))
            self._sizes.move_to_end(number)
            return self._sizes[number]

    def _manifest_of(self, measurer: Measurer) -> Manifest:
        """The manifest with what measures; with the lock held."""
        if self._noted is None:
            self._index.check_measurer(self._manifest, measurer)
            is_noted = bool(self._manifest.measured_by) or not self._may_measure
            self._noted = self._manifest if is_noted else self._index.start_measuring(self._manifest, measurer)
        return self._noted

    def _remember(self, number: int, loaded: ShardSizes) -> None:
        """With the lock held."""
        self._sizes[number] = loaded
        while sum(map(sizes_.nbytes, self._sizes.values())) > MOST_SIZES_BYTES and len(self._sizes) > 1:
            self._sizes.popitem(last=False)

    def check_measured(self, shards: Int64[np.ndarray, " n"], measurer: Measurer) -> None:
        """Raises SourceError where one of these shards has no sizes, or all have those of another tokenizer."""
        self._index.check_measurer(self._manifest, measurer)
        missing = shards[~self._index.measured()[shards]].tolist()
        if missing:
            raise SourceError(self._lacking(missing))

    def _lacking(self, shards: list[int]) -> str:
        more = f" and {len(shards) - 1:,} more shards" if len(shards) > 1 else ""
        return (
            f"data: the index of {self.name} in '{self._index.folder}' lacks the sizes of "
            f"'{self._index.names[shards[0]]}'{more}; {MEASURE_BEFORE}."
        )

    def _shard(self, number: int) -> Shard:
        with self._shards_lock:
            if number in self._open_shards:
                self._open_shards.move_to_end(number)
                return self._open_shards[number]
        # Without the lock: of a bucket it takes some requests, and other threads open others meanwhile.
        opened = self._index.open(number, self._manifest.shards[number])
        with self._shards_lock:
            self._open_shards.setdefault(number, opened)
            self._open_shards.move_to_end(number)
            others = [opened] if self._open_shards[number] is not opened else []
            if len(self._open_shards) > MOST_OPEN_SHARDS:
                others.append(self._open_shards.popitem(last=False)[1])
            for other in others:
                other.close()
            return self._open_shards[number]

    def _refused(self) -> list[Skip]:
        """What the storage refused in all shards, by reason."""
        counts: dict[str, int] = {}
        first: dict[str, str] = {}
        for shard in self._manifest.shards:
            for reason, count in shard.refused.items():
                counts[reason] = counts.get(reason, 0) + count
                first.setdefault(reason, shard.name)
        return [
            Skip(self.name, first[reason], reason, f"in '{first[reason]}'", count, True, first[reason])
            for reason, count in counts.items()
        ]
