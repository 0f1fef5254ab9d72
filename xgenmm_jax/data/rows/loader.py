"""Batches of a run: windows are planned one ahead, rows decoded in threads and workers, behind one iterator."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import ctypes
import functools
import itertools
import os
import signal
import sys
import threading
from typing import NamedTuple

from absl import flags
import grain
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.errors import Skip, SourceError
from xgenmm_jax.data.rows import build, quarantine
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.rows.quarantine import SampleIds
from xgenmm_jax.data.rows.window import Window, open_sources, plan_window
from xgenmm_jax.data.source import Records
from xgenmm_jax.data.text.tokenizer import Tokenizer

LEAST_TRIED = 32
"""Samples one after the other none of which can be used: a run gives up. A window is often more, seldom less."""

REMEMBERED_WINDOWS = 64
"""Windows whose skips are remembered behind the newest: batches are asked for about in their order."""

_PR_SET_PDEATHSIG = 1


class HostBatch(NamedTuple):
    """One host's part of a batch."""

    batch: Batch  # numpy arrays
    sample_ids: list[str]  # one string a row: its samples, joined by " + "
    state: State  # of the run, after this batch

    @property
    def skipped(self) -> tuple[Skip, ...]:
        """What was left out on the way to this batch.

        On every host samples of its rows whose images are damaged. On the first host alone also records of the
        windows that begin in this batch, and in the first batch of the iterator what the sources left out at opening.
        """
        return getattr(self.sample_ids, "skipped", ())


def batches(
    config: DataConfig,
    seed: int,
    state: tuple[int, int] = State(),
    host_index: int = 0,
    host_count: int = 1,
) -> Iterator[HostBatch]:
    """Endless batches from `state` on; of the global batch, this host's rows.

    Close the iterator (`contextlib.closing`) to end its threads and workers. The rows depend on none of: hosts,
    workers, threads, where the run was resumed. What is left out is logged and stands in
    `HostBatch.skipped`.

    Raises ValueError, at the batch that it concerns, for what no single record is to blame for; also where nothing at
    all can be decoded of as many samples as a window has.
    """
    # Each host makes its own rows; threads, or processes with threads, are grain's.
    if config.batch_rows % host_count or not 0 <= host_index < host_count:
        raise ValueError(
            f"data: host {host_index} of {host_count} cannot share {config.batch_rows} rows; "
            "make batch_rows a multiple of the hosts."
        )
    loader = config.loader
    source = _BatchSource(config, seed, State(*map(int, state)), host_index, host_count)
    if loader.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers pass absl's flags on and insist that they were parsed
    options = grain.ReadOptions(num_threads=loader.threads, prefetch_buffer_size=max(1, loader.ahead))
    dataset = grain.MapDataset.source(source).to_iter_dataset(options)
    if loader.workers:
        processes = grain.MultiprocessingOptions(loader.workers, per_worker_buffer_size=max(1, loader.ahead))
        dataset = dataset.mp_prefetch(processes, worker_init_fn=_end_with_parent)
    iterator = iter(dataset)
    skip_logger, undecoded = quarantine.SkipLogger(), quarantine.Undecoded(config.window)
    try:
        for number in itertools.count():
            loaded, batch = next(iterator)
            assert loaded == number, f"loader gave batch {loaded} for {number}"
            if loader.workers:
                # Off grain's shared memory, which complains at exit about arrays that are still held.
                batch = batch._replace(batch=Batch(*map(np.array, batch.batch)))
            skip_logger.log(batch.skipped)
            undecoded.check(batch.skipped, bool(batch.batch.segment_ids.any()))
            yield batch
    finally:
        iterator.close()
        source.close()


def _end_with_parent(index: int, count: int) -> None:
    """Asks Linux to kill this worker with its parent; without it, a killed run leaves its workers behind."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died while we asked
        os.kill(os.getpid(), signal.SIGKILL)


class _BatchSource:
    """Batches by number, counted from `state`. Any thread may ask; windows are planned once, one ahead."""

    def __init__(self, config: DataConfig, seed: int, state: State, host_index: int, host_count: int):
        self._arguments = (config, seed, state, host_index, host_count)
        self._config, self._seed, self._start = config, seed, state
        share = config.batch_rows // host_count
        self._host_rows = slice(host_index * share, (host_index + 1) * share)
        self._lock = threading.Lock()
        self._planner: ThreadPoolExecutor | None = None
        self._windows: dict[int, Future[Window]] = {}
        self._rows_of: dict[int, int] = {}  # rows of each window planned so far
        self._skipped_of: dict[int, tuple[Skip, ...]] = {}

    def __reduce__(self):
        return _BatchSource, self._arguments

    def __len__(self) -> int:
        return 2**31 - 1

    def __repr__(self) -> str:
        return "batches"

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self._config.tokenizer)

    @functools.cached_property
    def _sources(self) -> list[Records]:
        return open_sources(self._config)

    def __getitem__(self, number: int) -> tuple[int, HostBatch]:
        """A batch and its number: planned under the lock, built (images decoded) outside of it."""
        config = self._config
        is_first_host = self._host_rows.start == 0
        skipped: list[Skip] = []
        with self._lock:
            if is_first_host and number == 0:
                skipped += quarantine.at_opening(self._sources)
            rows, begun, state = self._locate(number)
            if is_first_host:
                skipped += itertools.chain.from_iterable(map(self._skips, begun))
            samples = [self._window(window).rows[row] for window, row in rows[self._host_rows]]
        damaged: list[Skip] = []
        batch = build.build_rows(samples, config.row, config.anyres, self._tokenizer, damaged)
        gone = {(skip.source, skip.record) for skip in damaged}
        ids = [" + ".join(one.id for one in row if (one.source, one.id) not in gone) for row in samples]
        return number, HostBatch(batch, SampleIds.of(ids, [*skipped, *damaged]), state)

    def _locate(self, number: int) -> tuple[list[tuple[int, int]], list[int], State]:
        """(window, row) of each row of a batch, the windows that begin in it, and the state after it.

        Raises SourceError where windows one after the other, of LEAST_TRIED samples or more, have no row.
        """
        window, row = self._start
        if row > self._count(window):
            raise ValueError(
                f"data: state ({window}, {row}) lies beyond the {self._count(window)} rows of its window; "
                "resume with the data config that the run had."
            )
        # As if all windows were one: the row that the batch begins with, counted from the window of the first state.
        row += number * self._config.batch_rows
        rows: list[tuple[int, int]] = []
        begun: list[int] = []
        empty: list[Skip] = []
        while len(rows) < self._config.batch_rows:
            count = self._count(window)
            if row == 0:
                begun.append(window)
            if row >= count:
                # Past this window's rows. Windows without any row are counted: data that gives none is an error.
                empty = [] if count else [*empty, *self._skips(window)]
                if len(empty) >= LEAST_TRIED:
                    raise SourceError(
                        f"data: none of the {len(empty)} samples up to window {window} can be used: "
                        f"{quarantine.in_words(empty)}; mend the data, or raise row.length where they are too long."
                    )
                window, row = window + 1, row - count
                continue
            rows.append((window, row))
            row += 1
        return rows, begun, State(window + 1, 0) if row == self._count(window) else State(window, row)

    def _count(self, window: int) -> int:
        if window not in self._rows_of:
            self._rows_of[window] = len(self._window(window).rows)
            self._skips(window)
            for old in [old for old in self._skipped_of if old < window - REMEMBERED_WINDOWS and self._rows_of[old]]:
                del self._skipped_of[old]
        return self._rows_of[window]

    def _skips(self, window: int) -> tuple[Skip, ...]:
        if window not in self._skipped_of:
            self._skipped_of[window] = self._window(window).skipped
        return self._skipped_of[window]

    def _window(self, window: int) -> Window:
        for number in (window, window + 1):
            if number not in self._windows:
                if self._planner is None:
                    self._planner = ThreadPoolExecutor(1, "plan")
                self._windows[number] = self._planner.submit(self._plan, number)
        result = self._windows[window].result()
        for old in [old for old in self._windows if old < window - 1]:
            del self._windows[old]
        return result

    def _plan(self, window: int) -> Window:
        return plan_window(self._config, self._sources, self._tokenizer, self._seed, window)

    def close(self) -> None:
        if self._planner is not None:
            self._planner.shutdown(wait=False, cancel_futures=True)
