"""Data to batches: sources, order, packing and decoding behind one iterator."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import dataclasses
from dataclasses import dataclass
import functools
import itertools
import threading
from typing import NamedTuple

from absl import flags
import grain
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Sample
from xgenmm_jax.data.rows import build, order, packing, parent, quarantine
from xgenmm_jax.data.rows.order import Draw, State
from xgenmm_jax.data.rows.packing import RowConfig, Size
from xgenmm_jax.data.rows.quarantine import SampleIds, Skip, SourceError
from xgenmm_jax.data.source import Records, Source
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer

LEAST_TRIED = 32
"""Samples one after the other none of which can be used: a run gives up. A window is often more, seldom less."""


KEPT = 64
"""Windows whose skips are remembered behind the newest: batches are asked for about in their order."""


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are loaded; it never changes which.

    threads: decode and lay out batches, in each worker. workers: processes beside this one; 0 (the default) is
    threads alone, which was as fast on two cores. ahead: batches made before they are asked for.
    """

    threads: int = 2
    workers: int = 0
    ahead: int = 4


@dataclass(frozen=True)
class DataConfig:
    """What a run trains on.

    mixture: (source, weight); weights are relative numbers of samples.
    tokenizer: path of a SentencePiece model.
    batch_rows: rows of the global batch. window: samples that are packed together.
    """

    mixture: tuple[tuple[Source, float], ...]
    tokenizer: str
    row: RowConfig
    anyres: AnyRes
    batch_rows: int
    window: int = 2048
    chat: ChatStyle = ChatStyle()
    loader: LoaderConfig = LoaderConfig()

    def __post_init__(self):
        crops, row = self.anyres.max_crops, self.row
        if crops > row.crops:
            raise ValueError(
                f"data: a picture takes up to {crops} crops and a row holds {row.crops}; "
                f"raise row.crops to {crops} or leave large grids out of anyres.grids."
            )
        tokens = row.vision_tokens * (crops if row.vision_tokens_per == "crop" else 1)
        if tokens >= row.length:
            raise ValueError(
                f"data: a picture takes up to {tokens} vision tokens and a row holds {row.length} positions; "
                "raise row.length or leave large grids out of anyres.grids."
            )
        if self.window < 1 or self.batch_rows < 1:
            raise ValueError(f"data: window {self.window}, batch_rows {self.batch_rows}; wanted 1 or more.")


class HostBatch(NamedTuple):
    """One host's part of a batch."""

    batch: Batch  # numpy arrays
    sample_ids: list[str]  # one string a row: its samples, joined by " + "
    state: State  # of the run, after this batch

    @property
    def skipped(self) -> tuple[Skip, ...]:
        """What was left out on the way to this batch: records of the windows that begin in it and, in the first batch,
        what the sources left out at opening, both told to the first host; and samples whose pictures are damaged."""
        return getattr(self.sample_ids, "skipped", ())


class Window(NamedTuple):
    """Packed samples, before pictures are decoded."""

    rows: list[list[Sample]]  # in the order of training
    skipped: tuple[Skip, ...]  # records that cannot be used, and samples that no row could hold

    @property
    def dropped(self) -> int:
        """How many of the window's samples are in none of its rows."""
        return len(self.skipped)


def open_sources(config: DataConfig) -> list[Records]:
    return [source.open() for source, _ in config.mixture]


def plan(config: DataConfig, sources: list[Records], tokenizer: Tokenizer, seed: int, window: int) -> Window:
    """The rows of a window: a pure function of its arguments and the data, the same on every host and worker.

    A record that cannot be read, tokenised or measured is left out, and what could be packed is packed without it.

    Raises:
        ValueError: a sample that no row can hold where these are errors, pairs mixed with other samples, a source that
            is gone.
    """
    weights = [weight for _, weight in config.mixture]
    lengths = [len(source) for source in sources]
    samples: list[Sample] = []
    skipped: list[Skip] = []
    for draw in order.draws(weights, lengths, seed, window * config.window, config.window):
        found = _sample(config, sources[draw.component], draw, tokenizer, seed)
        if isinstance(found, Skip):
            skipped.append(found)
        else:
            samples.append(found)
    pairs = sum(sample.rejected_ids is not None for sample in samples)
    if pairs not in (0, len(samples)):
        raise ValueError(f"data: {pairs} of {len(samples)} samples are preference pairs; give them their own mixture.")
    sizes = [_size(sample, config) for sample in samples]
    packed = packing.best_fit(sizes, packing.budget(config.row))
    shuffled = order.row_order(len(packed), seed, window)
    return Window([[samples[i] for i in packed[row]] for row in shuffled], tuple(skipped))


def _sample(config: DataConfig, source: Records, draw: Draw, tokenizer: Tokenizer, seed: int) -> Sample | Skip:
    record_id, reason = f"record {draw.record}", quarantine.UNREADABLE
    try:
        record = source.record(draw.record, draw.rng(seed))
        record_id, reason = record.id, quarantine.UNUSABLE
        sample = chat.sample(record, tokenizer, config.chat)
        layouts = packing.layouts_of(sample.pictures, config.anyres)
    except Exception as error:
        if not quarantine.is_of_a_record(error):
            error.add_note(f"Raised at {record_id} of {source.name}.")
            raise
        return quarantine.skip_of(error, source.name, getattr(error, "record", record_id), reason)
    fitting = packing.fit(sample, config.anyres, config.row, tokenizer)
    if fitting is None:
        detail = f"{' and '.join(packing.excess(sample, layouts, config.row))}, and it has no place to cut"
        return Skip(source.name, record_id, quarantine.NO_ROW, detail)
    return dataclasses.replace(fitting, source=source.name)


def _size(sample: Sample, config: DataConfig) -> Size:
    return packing.measure(sample, packing.layouts_of(sample.pictures, config.anyres), config.row)


def batches(
    config: DataConfig,
    seed: int,
    state: tuple[int, int] = State(),
    host_index: int = 0,
    host_count: int = 1,
) -> Iterator[HostBatch]:
    """Endless batches from `state` on; of the global batch, this host's rows.

    Close the iterator (`contextlib.closing`) to end its threads and workers. The rows depend on none of: hosts,
    workers, threads, where the run was resumed. What is left out is logged, and told by `HostBatch.skipped`.

    Raises ValueError, at the batch that it concerns, for what no single record is to blame for; also where nothing at
    all can be decoded of as many samples as a window has.
    """
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
        dataset = dataset.mp_prefetch(processes, worker_init_fn=_start_worker)
    iterator = iter(dataset)
    teller, undecoded = quarantine.Teller(), quarantine.Undecoded(config.window)
    try:
        for number in itertools.count():
            made_as, batch = next(iterator)
            assert made_as == number, f"loader gave batch {made_as} for {number}"
            if loader.workers:
                # Off grain's shared memory, which complains at exit about arrays that are still held.
                batch = batch._replace(batch=Batch(*map(np.array, batch.batch)))
            teller.tell(batch.skipped)
            undecoded.check(batch.skipped, bool(batch.batch.segment_ids.any()))
            yield batch
    finally:
        iterator.close()
        source.close()


def _start_worker(index: int, count: int) -> None:
    parent.end_with_parent()


class _BatchSource:
    """Batches by number, counted from `state`. Any thread may ask; windows are planned once, one ahead."""

    def __init__(self, config: DataConfig, seed: int, state: State, host_index: int, host_count: int):
        self._arguments = (config, seed, state, host_index, host_count)
        self._config, self._seed, self._start = config, seed, state
        share = config.batch_rows // host_count
        self._own = slice(host_index * share, (host_index + 1) * share)
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
        config = self._config
        is_first_host = self._own.start == 0
        skipped: list[Skip] = []
        with self._lock:
            if is_first_host and number == 0:
                skipped += quarantine.at_opening(self._sources)
            rows, begun, state = self._locate(number)
            samples = []
            if is_first_host:
                skipped += itertools.chain.from_iterable(map(self._skips, begun))
            samples = [self._window(window).rows[row] for window, row in rows[self._own]]
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
        row += number * self._config.batch_rows
        rows: list[tuple[int, int]] = []
        begun: list[int] = []
        empty: list[Skip] = []
        while len(rows) < self._config.batch_rows:
            count = self._count(window)
            if row == 0:
                begun.append(window)
            if row >= count:
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
            for old in [old for old in self._skipped_of if old < window - KEPT and self._rows_of[old]]:
                del self._skipped_of[old]
        return self._rows_of[window]

    def _skips(self, window: int) -> tuple[Skip, ...]:
        if window not in self._skipped_of:
            self._skipped_of[window] = self._window(window).skipped
        return self._skipped_of[window]

    def _window(self, window: int) -> Window:
        for wanted in (window, window + 1):
            if wanted not in self._windows:
                if self._planner is None:
                    self._planner = ThreadPoolExecutor(1, "plan")
                self._windows[wanted] = self._planner.submit(self._plan, wanted)
        result = self._windows[window].result()
        for old in [old for old in self._windows if old < window - 1]:
            del self._windows[old]
        return result

    def _plan(self, window: int) -> Window:
        return plan(self._config, self._sources, self._tokenizer, self._seed, window)

    def close(self) -> None:
        if self._planner is not None:
            self._planner.shutdown(wait=False, cancel_futures=True)
