"""Batches of a run: windows are planned one ahead, once a host; rows are read and decoded in threads or processes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
import functools
import logging
from typing import NamedTuple

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.data import processes
from xgenmm_jax.data.errors import Skip, SourceError
from xgenmm_jax.data.rows import quarantine
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.loading import BuiltRows, RowBuilder, Seen
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.rows.planner import LEAST_TRIED, Planner, Rows
from xgenmm_jax.data.rows.quarantine import SampleIds
from xgenmm_jax.data.rows.window import Planned, SizedRecords, open_sources, shards_of
from xgenmm_jax.data.source import Records

LOG = logging.getLogger(__name__)

BUILDING_THREADS = 2
"""Batches that are built at a time where there are no worker processes; each has `threads` that read for it."""


class HostBatch(NamedTuple):
    """One host's part of a batch."""

    batch: Batch | DrawingBatch  # numpy arrays
    sample_ids: list[str]  # one string a row: its samples, joined by " + "
    state: State  # of the run, after this batch

    @property
    def skipped(self) -> tuple[Skip, ...]:
        """What was left out on the way to this batch.

        On every host samples of its rows that cannot be read. On the first host alone also records of the windows that
        begin in this batch, and in the first batch of the iterator what the sources left out at opening.
        """
        return getattr(self.sample_ids, "skipped", ())

    @property
    def seen(self) -> dict[str, Seen]:
        """What this host's rows hold of each source."""
        return getattr(self.sample_ids, "seen", {})


def batches(
    config: DataConfig,
    seed: int,
    state: tuple[int, int] = State(),
    host_index: int = 0,
    host_count: int = 1,
    may_measure: bool = True,
) -> Iterator[HostBatch]:
    """Endless batches from `state` on; of the global batch, this host's rows.

    may_measure: whether indexes may be written where they lack something. False with several processes, which may be
    one host in rows (`sharding.host_share`); of several hosts none does.

    Close the iterator (`contextlib.closing`) to end its threads and workers. The rows depend on none of: hosts,
    workers, threads, where the run was resumed. What is left out is logged and stands in `HostBatch.skipped`.

    Raises ValueError, at the batch that it concerns, for what no single record is to blame for; also where nothing at
    all can be decoded of LEAST_TRIED records, or of as many as are drawn, and where too many records of a source are
    bad.
    """
    if config.batch_rows % host_count or not 0 <= host_index < host_count:
        raise ValueError(
            f"data: host {host_index} of {host_count} cannot share {config.batch_rows} rows; "
            "make batch_rows a multiple of the hosts."
        )
    share = config.batch_rows // host_count
    host_rows = slice(host_index * share, (host_index + 1) * share)
    sources = open_sources(config, may_measure=may_measure and host_count == 1)
    for source in sources:
        if hasattr(source, "shards") and not isinstance(source, SizedRecords):
            LOG.warning("data: '%s' changes records of an index, so each is read to plan its window too", source.name)
    planner = Planner(config, seed, State(*map(int, state)), sources)
    builders = _Builders(config, seed, sources)
    skip_logger, undecoded = quarantine.SkipLogger(), quarantine.Undecoded(_enough(config, sources))
    rates = quarantine.BadRates(config.max_bad_rate)
    opened = quarantine.at_opening(sources) if host_index == 0 else []
    pending: deque[tuple[Rows, Future[BuiltRows]]] = deque()
    failed: Exception | None = None
    try:
        while True:
            # What is planned is being built, `ahead` batches of it; an error waits until its batch is asked for.
            while failed is None and len(pending) <= builders.ahead:
                try:
                    planned = planner.take(config.batch_rows)
                except Exception as error:
                    failed = error
                    break
                pending.append((planned, builders.submit(planned.rows[host_rows])))
            if not pending:
                assert failed is not None
                raise failed
            planned, future = pending.popleft()
            built = builders.result(future)
            # Records of its windows are told of by the first host, samples of rows by the host that has them.
            skipped = [*opened, *(planned.skipped if host_index == 0 else ()), *built.skipped]
            opened = []
            ids = SampleIds.of(built.ids, skipped, built.seen)
            skip_logger.log(skipped)
            undecoded.check(skipped, bool(built.batch.segment_ids.any()))
            rates.check(skipped, {name: seen.tried for name, seen in built.seen.items()})
            yield HostBatch(built.batch, ids, planned.state)
    finally:
        planner.close()
        builders.close()


def _enough(config: DataConfig, sources: list[Records]) -> int:
    """Records one after the other none of which can be decoded that say that none can: all that are drawn where they
    are few, as a short run goes through them and would end as if it had trained."""
    drawn = {number for phase in config.order_phases for number, weight in enumerate(phase.weights) if weight}
    shards = shards_of(config, sources)
    return min(LEAST_TRIED, sum(int(shards[number].drawn().sum()) for number in drawn))


class _Builders:
    """Where rows are built: threads of this process, or worker processes."""

    def __init__(self, config: DataConfig, seed: int, sources: list):
        workers = config.loader.workers
        self.ahead = max(1, config.loader.ahead, workers)
        self._builder: RowBuilder | None = None
        self._submit: Callable[[Sequence[Sequence[Planned]]], Future[BuiltRows]]
        if workers:
            pool = processes.pool(workers, _start_worker, (config, seed))
            self._submit = functools.partial(processes.submit, pool, _build_in_worker)
        else:
            self._builder = RowBuilder(config, seed, sources)
            pool = ThreadPoolExecutor(BUILDING_THREADS, "build")
            self._submit = functools.partial(pool.submit, self._builder.build)
        self._pool: Executor = pool

    def submit(self, rows: Sequence[Sequence[Planned]]) -> "Future[BuiltRows]":
        try:
            return self._submit(rows)
        except BrokenProcessPool as error:
            raise SourceError(_DEAD_WORKER) from error

    def result(self, future: "Future[BuiltRows]") -> BuiltRows:
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise SourceError(_DEAD_WORKER) from error

    def close(self) -> None:
        """Waits for what is being built just now, so that no thread or process is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._builder is not None:
            self._builder.close()


_DEAD_WORKER = (
    "data: a worker process of the loader ended (killed for memory?) or could not start; see its words above, or take "
    "fewer data.loader.workers."
)

_WORKER: list[RowBuilder] = []
"""The builder of a worker process."""


def _start_worker(config: DataConfig, seed: int) -> None:
    _WORKER.append(RowBuilder(config, seed))


def _build_in_worker(rows: Sequence[Sequence[Planned]]) -> BuiltRows:
    return _WORKER[0].build(rows)
