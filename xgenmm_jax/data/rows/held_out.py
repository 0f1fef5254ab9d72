"""Rows that no step trains on: a fixed set of samples of what the sources set aside, for the held-out loss.

They are packed as training's rows are, and depend on mixture, sources and number of samples alone: not on the run's
seed, its hosts or workers, or where it was resumed.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
import dataclasses
from typing import NamedTuple

from jaxtyping import Int32, Int64
import numpy as np

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.data.errors import Skip, SourceError
from xgenmm_jax.data.rows import order, quarantine
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.loading import BuiltRows, RowBuilder
from xgenmm_jax.data.rows.order import Shards
from xgenmm_jax.data.rows.window import Planned, measurer_of, open_sources, plan_window, shards_of
from xgenmm_jax.data.source import Records, Source

SEED = 0
"""Of the order in which held-out records are drawn and of what is random in them, whatever the run's seed."""

Mixture = tuple[tuple[Source, float], ...]


class HeldOutBatch(NamedTuple):
    """One host's part of a batch."""

    batch: Batch | DrawingBatch  # numpy arrays
    source_of: Int32[np.ndarray, "B segments"]
    """Of each segment id of a row, the number of its source's name; -1 of padding."""
    sample_ids: list[str]  # one string a row


def config_of(config: DataConfig, mixture: Mixture, samples: int) -> DataConfig:
    """What held-out rows are planned with: one window of so many samples.

    mixture: sources of their own, all of whose records may be drawn; () is what the run's mixture sets aside.
    """
    return dataclasses.replace(
        config,
        mixture=mixture or config.mixture,
        window=samples,
        phases=(),
        held_out_one_in=0 if mixture else config.held_out_one_in,
    )


def drawn_of(config: DataConfig, sources: list[Records], mixture: Mixture) -> list[Shards]:
    """What held-out rows draw of the opened sources of `config_of`.

    Raises ValueError where a source with a weight sets nothing aside.
    """
    shards = shards_of(config, sources)
    if mixture:
        return shards
    shards = [one._replace(draws_held_out=True) for one in shards]
    for (_, weight), source, one in zip(config.mixture, sources, shards, strict=True):
        if weight and not one.drawn().any():
            raise ValueError(_nothing(source, len(one.ends), config.held_out_one_in))
    return shards


def _nothing(source: Records, shards: int, one_in: int) -> str:
    if one_in:
        return (
            f"held_out: '{source.name}' has {len(source):,} records, and in no shard as many as data.held_out_one_in, "
            f"{one_in}, of which one is kept from training; lower it."
        )
    or_shards = "give it held_out_shards=1, or " if shards > 1 else ""
    return (
        f"held_out: '{source.name}' sets nothing aside; {or_shards}keep some of its records from training "
        "(--data.held-out-one-in 100, before the run's first step), or give held_out.mixture sources of its own."
    )


def _none(samples: int, skipped: Iterable[Skip]) -> str:
    why = quarantine.in_words(skipped) or "those that this host has read have nothing to predict"
    return (
        f"held_out: none of {samples} held-out samples can be used: {why}; mend the data, set other records aside "
        "(--data.held-out-one-in, before the run's first step), or give --held-out.every-steps 0 for no held-out loss."
    )


def reached(config: DataConfig, sources: list[Records], mixture: Mixture) -> list[Int64[np.ndarray, " reached"]]:
    """Of each source, the shards whose sizes the rows of `config_of` need. Raises as `drawn_of`."""
    shards = drawn_of(config, sources, mixture)
    return order.reached(config.order_phases, shards, SEED, config.window, range(1))


class HeldOutRows:
    """The rows, planned here once; what they hold is read anew each time that they are asked for.

    config: the run's. mixture, samples: see `config_of`. batch_rows: rows of a global batch; the last one is filled up
    with padding. may_measure: whether indexes of sources may be written.

    Raises ValueError where a source sets nothing aside, cannot be opened, or no sample fits a row.
    """

    def __init__(self, config: DataConfig, mixture: Mixture, samples: int, batch_rows: int, may_measure: bool = True):
        config = config_of(config, mixture, samples)
        sources = open_sources(config, may_measure)
        shards = drawn_of(config, sources, mixture)
        window = plan_window(config, sources, measurer_of(config), SEED, 0, shards)
        self._skips = quarantine.SkipLogger()
        self._skips.log(window.skipped)
        if not window.rows:
            raise SourceError(_none(samples, window.skipped))
        self._rows = window.rows + [[] for _ in range(-len(window.rows) % batch_rows)]
        self._batch_rows = batch_rows
        names = [source.name for source in sources]
        weights = [weight for _, weight in config.mixture]
        self.names = tuple(dict.fromkeys(name for name, weight in zip(names, weights, strict=True) if weight))
        """Names of the sources that are drawn, each once."""
        self._numbers = [self.names.index(name) if name in self.names else -1 for name in names]
        self._segments = 1 + max(sum(planned.size.segments for planned in row) for row in window.rows)
        self._builder = RowBuilder(config, SEED, sources)
        self._pool = ThreadPoolExecutor(1, "held-out")
        self._left_out: list[Skip] = []

    def __len__(self) -> int:
        """Batches."""
        return len(self._rows) // self._batch_rows

    def batches(self, host_index: int = 0, host_count: int = 1) -> Iterator[HeldOutBatch]:
        """Every batch once; of each, this host's rows. The next one is built while one is used.

        What cannot be read is padding: whether anything could is known of all hosts together (`nothing`).
        """
        share = self._batch_rows // host_count
        starts = range(host_index * share, len(self._rows), self._batch_rows)
        parts = [self._rows[start : start + share] for start in starts]
        following = self._pool.submit(self._builder.build, parts[0])
        self._left_out = []
        for number, part in enumerate(parts):
            built = following.result()
            if number + 1 < len(parts):
                following = self._pool.submit(self._builder.build, parts[number + 1])
            self._skips.log(built.skipped)
            self._left_out += built.skipped
            yield self._batch(part, built)

    def nothing(self) -> str:
        """What to say where no host's samples counted in the last `batches`: what this one left out, and what to do."""
        return _none(sum(map(len, self._rows)), self._left_out)

    def _batch(self, rows: list[list[Planned]], built: BuiltRows) -> HeldOutBatch:
        source_of = np.full((len(rows), self._segments), -1, np.int32)
        for row, samples in zip(source_of, rows, strict=True):
            segment = 1
            for planned in samples:
                row[segment : segment + planned.size.segments] = self._numbers[planned.draw.component]
                segment += planned.size.segments
        return HeldOutBatch(built.batch, source_of, built.ids)

    def close(self) -> None:
        """Ends its threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._builder.close()
