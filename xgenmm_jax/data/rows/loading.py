"""Planned rows to arrays: records are read, tokenized and decoded, and written where the plan has put them."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from jaxtyping import UInt8
import numpy as np

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.data.anyres import Layout
from xgenmm_jax.data.center_crop import center_crop
from xgenmm_jax.data.errors import (
    BAD_IMAGE,
    NOT_AS_INDEXED,
    UNREADABLE,
    UNUSABLE,
    RecordError,
    Skip,
    SourceError,
    is_of_a_record,
)
from xgenmm_jax.data.records import Record, Sample
from xgenmm_jax.data.rows import build, packing, quarantine
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import Size
from xgenmm_jax.data.rows.window import Planned, SizedRecords, open_sources
from xgenmm_jax.data.source import Records
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import Tokenizer


class Seen(NamedTuple):
    """What rows hold of one source."""

    samples: int
    positions: int
    tried: int
    """Samples that the plan put there; those that could not be read included."""


class BuiltRows(NamedTuple):
    """Rows as arrays, and what is in them."""

    batch: Batch | DrawingBatch
    """The latter where the data have a `target_px`."""
    ids: list[str]
    """One string a row: its samples, joined by " + "."""
    skipped: tuple[Skip, ...]
    seen: dict[str, Seen]
    """By the name of the source."""
    members: list[list[str | Skip]]
    """Of each row its samples as they were planned: the id, or why its part of the row is padding."""


class _Loaded(NamedTuple):
    sample: Sample
    layouts: tuple[Layout, ...]
    target: UInt8[np.ndarray, "h w 3"] | None = None
    """What a text is to become."""


class RowBuilder:
    """Builds planned rows; any thread may ask. Sources and tokenizer are opened once."""

    def __init__(self, config: DataConfig, seed: int, sources: list[Records] | None = None):
        self._config, self._seed = config, seed
        self._tokenizer = Tokenizer.load(config.tokenizer)
        self._sources = open_sources(config) if sources is None else sources
        # Once: to ask it of a protocol takes as long as to tokenize a caption.
        self._are_sized = [isinstance(source, SizedRecords) for source in self._sources]
        self._pool = ThreadPoolExecutor(max(1, config.loader.threads), "read")

    def build(self, rows: Sequence[Sequence[Planned]]) -> BuiltRows:
        """A sample that cannot be read leaves its part of the row padding; no other one moves."""
        config = self._config
        batch = build.empty_rows(len(rows), config.row, config.anyres, self._tokenizer.pad_id)
        drawing = DrawingBatch.around(batch, config.row.segments, config.target_px) if config.target_px else None
        # Threads decode into the batch itself.
        planned_rows = [planned for row in rows for planned in row]
        targets = [target for number, row in enumerate(rows) for target in _targets(batch.pixels[number], row)]
        loaded = iter(self._pool.map(self._load, planned_rows, targets))
        members: list[list[str | Skip]] = []
        samples: Counter[str] = Counter()
        positions: Counter[str] = Counter()
        tried: Counter[str] = Counter()
        for number, row in enumerate(rows):
            out, used = build.row_of(batch, number), Size(0, 0, 0, 0)
            members.append([])
            for planned in row:
                one, source = next(loaded), self._sources[planned.draw.component].name
                tried[source] += 1
                members[-1].append(one if isinstance(one, Skip) else one.sample.id)
                if not isinstance(one, Skip):
                    build.write(out, one.sample, one.layouts, used, config.row, self._tokenizer.image_id)
                    if drawing is not None and one.target is not None:
                        build.write_target(
                            drawing, number, one.sample, one.target, used.positions, used.segments, planned.draw,
                            self._seed,
                        )  # fmt: skip
                    samples[source] += 1
                    positions[source] += planned.size.positions
                used = build.added(used, planned.size)
        ids = [" + ".join(member for member in row if not isinstance(member, Skip)) for row in members]
        skipped = tuple(member for row in members for member in row if isinstance(member, Skip))
        seen = {name: Seen(samples[name], positions[name], tried[name]) for name in tried}
        return BuiltRows(batch if drawing is None else drawing, ids, skipped, seen, members)

    def _load(self, planned: Planned, pixels: UInt8[np.ndarray, "n S S 3"]) -> _Loaded | Skip:
        """The sample of a draw, its images decoded into `pixels`; or why it cannot be had."""
        config, draw = self._config, planned.draw
        source = self._sources[draw.component]
        is_sized = self._are_sized[draw.component]
        name, reason = source.label_of(draw.record) if is_sized else f"record {draw.record}", UNREADABLE
        shard = source.shard_name(draw.record) if is_sized else ""
        try:
            record = source.record(draw.record, draw.rng(self._seed))
            name, reason = record.id, UNUSABLE
            fitting = fitted_sample(record, config, self._tokenizer)
            layouts = packing.layouts_of(fitting.images, config.anyres)
            size = packing.measure(fitting, layouts, config.row)
            if size != planned.size:
                reason = NOT_AS_INDEXED
                raise RecordError(name, f"it takes {_in_words(size)} and was to take {_in_words(planned.size)}")
            if (image_px := tuple(tuple(image.size_px) for image in fitting.images)) != planned.image_px:
                reason = NOT_AS_INDEXED
                raise RecordError(name, f"its images have {image_px} pixels and had {planned.image_px}")
        except Exception as error:
            # A shard that went away behind the index costs its records; too many of them end the run.
            if not is_of_a_record(error) and not (is_sized and isinstance(error, SourceError)):
                error.add_note(f"Raised at {name} of {source.name}.")
                raise
            return quarantine.skip_of(error, source.name, getattr(error, "record", name), reason)._replace(shard=shard)
        damaged: list[Skip] = []
        if not build.decode(fitting, layouts, config.anyres, pixels, damaged):
            return damaged[0]._replace(source=source.name, shard=shard)
        if fitting.target is None:
            return _Loaded(fitting, layouts)
        if not config.target_px:
            raise SourceError(f"data: {name} is a text to draw, and data.target_px is 0; give the side of its image.")
        try:
            return _Loaded(fitting, layouts, center_crop(fitting.target.load(), config.target_px))
        except Exception as error:
            if not is_of_a_record(error):
                error.add_note(f"Raised for the image that the record {fitting.id} is to become.")
                raise
            return quarantine.skip_of(error, source.name, fitting.id, BAD_IMAGE)._replace(shard=shard)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _targets(pixels: UInt8[np.ndarray, "C S S 3"], row: Sequence[Planned]) -> list[UInt8[np.ndarray, "_ S S 3"]]:
    """Each sample's part of a row's pixels, in the order in which they are packed."""
    ends = np.cumsum([planned.size.crops for planned in row])
    return [pixels[end - planned.size.crops : end] for planned, end in zip(row, ends, strict=True)]


def fitted_sample(record: Record, config: DataConfig, tokenizer: Tokenizer) -> Sample:
    """The tokenized record, cut to a row. Raises ValueError where it gives no sample or no row can hold it."""
    sample = chat.sample(record, tokenizer, config.chat)
    fitting = packing.fit(sample, config.anyres, config.row, tokenizer)
    if fitting is None:
        size = packing.measure(sample, packing.layouts_of(sample.images, config.anyres), config.row)
        raise ValueError(packing.too_long(record.id, size, config.row))
    return fitting


def _in_words(size: Size) -> str:
    return f"{size.positions} positions and {size.crops} crops"
