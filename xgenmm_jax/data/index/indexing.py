"""Indexing before a run: the manifest of a source, and the sizes of its shards, or of those that a run reaches.

A run on one host measures what it reaches by itself. With several hosts `check_ready` says before the first step what
is missing, and `index_experiment` makes it. What is killed here goes on where it was when it is called again.
"""

from collections.abc import Callable, Iterable
import math
from typing import NamedTuple

import numpy as np

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.index.counts import Counts
from xgenmm_jax.data.index.source_index import SourceIndex
from xgenmm_jax.data.index.workers import Measuring, Worker
from xgenmm_jax.data.processes import Workers
from xgenmm_jax.data.rows import held_out, order
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.window import measurer_of, open_sources, plan_window, shards_of
from xgenmm_jax.data.sharded import ShardedRecords, ShardedSource, check_own_indexes
from xgenmm_jax.data.source import without_changes

WINDOWS_TRIED = 8
"""Windows all over a run whose rows are counted to tell how many windows it needs."""
MARGIN = 0.05
"""Share of windows that are indexed beyond these."""

Progress = Callable[[str, int, int], None]
"""Told what is done, for how many shards, of how many."""


class Indexed(NamedTuple):
    """An index as it is now.

    outdated: what differed, so that the index was made again; None where it was as it should be. records, bytes: of all
    shards. refused: what the storage left out, by reason. counts: of `measured` shards, `new` of them measured now.
    """

    name: str
    folder: str
    outdated: str | None
    shards: int
    records: int
    bytes: int
    refused: dict[str, int]
    measured: int
    new: int
    counts: Counts


class IndexedExperiment(NamedTuple):
    """The indexes of a run's sources, in the mixture's order; how many windows they are for; sources without one."""

    sources: tuple[Indexed, ...]
    windows: int
    without_index: tuple[str, ...]


def index_source(
    source: ShardedSource,
    measuring: Measuring | None,
    processes: int = 1,
    progress: Progress | None = None,
    again: bool = False,
) -> Indexed:
    """Makes the manifest of a source, and the sizes of all of its shards.

    measuring: None makes the manifest alone. again: all is made anew, though nothing differs.

    Raises SourceError where a shard cannot be read or nothing can be written, ValueError where the tokenizer cannot.
    """
    with Workers(processes, Worker, ((source,), measuring)) as workers:
        building = _Building(0, source, workers, measuring, progress, again)
        if measuring is not None:
            building.measure(range(len(building.index.paths)))
        return building.indexed()


def index_experiment(
    config: DataConfig,
    seed: int,
    steps: int,
    processes: int = 1,
    progress: Progress | None = None,
    again: bool = False,
    held_out_samples: int = 0,
) -> IndexedExperiment:
    """Makes the manifests of a run's sources, and the sizes of the shards that its steps reach.

    held_out_samples: of what the mixture sets aside, for the held-out loss, whose shards are measured too; 0: none.
    Sources without an index are passed over. Raises as `index_source`, and as planning a window does.
    """
    inner = [without_changes(source) for source, _ in config.mixture]
    sharded = {component: source for component, source in enumerate(inner) if isinstance(source, ShardedSource)}
    without = tuple(type(source).__name__ for source in inner if not isinstance(source, ShardedSource))
    if not sharded:
        return IndexedExperiment((), 0, without)
    check_own_indexes(sharded.values())
    measuring = Measuring(config.tokenizer, config.chat, (config.anyres, config.row))
    with Workers(processes, Worker, (tuple(sharded.values()), measuring)) as workers:
        building = {
            component: _Building(number, source, workers, measuring, progress, again)
            for number, (component, source) in enumerate(sharded.items())
        }
        sources, measurer = open_sources(config), measurer_of(config)
        # A source behind `Mapped` is read record by record: it needs its manifest and no sizes.
        sized = [component for component in sharded if isinstance(sources[component], ShardedRecords)]

        def measure(windows: range) -> None:
            reached = _reached(config, sources, seed, windows)
            for component in sized:
                building[component].measure(reached[component].tolist())

        def rows_of(window: int) -> int:
            measure(range(window, window + 1))
            return len(plan_window(config, sources, measurer, seed, window).rows)

        windows = 0
        if sized:
            windows = windows_needed(steps * config.batch_rows, rows_of)
            measure(range(windows))
        if sized and held_out_samples:
            reached = held_out.reached(held_out.config_of(config, (), held_out_samples), sources, ())
            for component in sized:
                building[component].measure(reached[component].tolist())
        return IndexedExperiment(tuple(one.indexed() for one in building.values()), windows, without)


def check_ready(config: DataConfig, seed: int, steps: int) -> None:
    """Raises SourceError where a source has no manifest, or no sizes of a shard that the steps reach.

    Nothing is written. What is reached is told as `index_experiment` does, from the same windows.
    """
    if not any(isinstance(without_changes(source), ShardedSource) for source, _ in config.mixture):
        return
    sources, measurer = open_sources(config, may_measure=False), measurer_of(config)

    def check(windows: range) -> None:
        for source, shards in zip(sources, _reached(config, sources, seed, windows), strict=True):
            if isinstance(source, ShardedRecords):
                source.check_measured(shards, measurer)

    def rows_of(window: int) -> int:
        check(range(window, window + 1))
        return len(plan_window(config, sources, measurer, seed, window).rows)

    if any(isinstance(source, ShardedRecords) for source in sources):
        check(range(windows_needed(steps * config.batch_rows, rows_of)))


def windows_needed(rows: int, rows_of: Callable[[int], int]) -> int:
    """How many windows give so many rows, with MARGIN: estimated from the rows of WINDOWS_TRIED windows among them.

    rows_of: plans a window. Raises SourceError where the windows tried have no row.
    """
    tried: dict[int, int] = {}
    count = 1
    while True:
        for window in np.linspace(0, count - 1, min(count, WINDOWS_TRIED)).astype(int).tolist():
            if window not in tried:
                tried[window] = rows_of(window)
        within = [number for window, number in tried.items() if window < count]
        if not sum(within):
            raise SourceError(f"data: none of the samples of {len(within)} windows can be used; mend the data.")
        needed = math.ceil(rows / (sum(within) / len(within)) * (1 + MARGIN)) + 1
        if needed <= count:
            return needed
        count = needed


def _reached(config: DataConfig, sources: list, seed: int, windows: range) -> list[np.ndarray]:
    return order.reached(config.order_phases, shards_of(config, sources), seed, config.window, windows)


class _Building:
    """The index of one source while it is made."""

    def __init__(
        self,
        number: int,
        source: ShardedSource,
        workers: Workers[Worker],
        measuring: Measuring | None,
        progress: Progress | None,
        again: bool,
    ):
        self._number, self._source, self._workers, self._progress = number, source, workers, progress
        self.index: SourceIndex = source.source_index()
        measurer = None if measuring is None else measuring.measurer()
        described = None if measurer is None else measurer.described()
        self._outdated = self.index.delete_outdated(described, again)
        self._manifest = None if self._outdated else self.index.manifest()
        if self._manifest is None:
            shards = len(self.index.paths)
            walked = workers.map(Worker.entry, ((number, shard) for shard in range(shards)))
            entries = self._told("walked", walked, shards)
            self._manifest = self.index.write_manifest(entries, described)
        if measurer is not None:
            self._manifest = self.index.start_measuring(self._manifest, measurer)
        self._measured: set[int] = set()
        self._new, self._counts = 0, Counts()

    def measure(self, shards: Iterable[int]) -> None:
        """Counts these shards, and measures those that have no sizes; shards that were counted are passed over."""
        left = [shard for shard in shards if shard not in self._measured]
        done = self._workers.map(Worker.measure, ((self._number, shard) for shard in left))
        for shard, one in zip(left, self._told("measured", done, len(left)), strict=True):
            self._measured.add(shard)
            self._new += one.is_new
            self._counts.add(one.counts)

    def _told(self, what: str, done: Iterable, total: int) -> Iterable:
        for number, one in enumerate(done, start=1):
            if self._progress is not None:
                self._progress(f"{self._source.label}: shards {what}", number, total)
            yield one

    def indexed(self) -> Indexed:
        assert self._manifest is not None
        shards = self._manifest.shards
        refused: dict[str, int] = {}
        for shard in shards:
            for reason, count in shard.refused.items():
                refused[reason] = refused.get(reason, 0) + count
        records, size = sum(shard.records for shard in shards), sum(shard.bytes for shard in shards)
        folder, outdated = self.index.folder, self._outdated
        measured, new = len(self._measured), self._new
        return Indexed(
            self._source.label, folder, outdated, len(shards), records, size, refused, measured, new, self._counts
        )
