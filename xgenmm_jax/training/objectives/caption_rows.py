"""Batches of images and their captions, one view of an image and one caption a row, for objectives on pairs."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple
import zlib

from jaxtyping import Bool, Int32, UInt8, UInt32
import numpy as np

from xgenmm_jax.batch import ArrayLike
from xgenmm_jax.data import anyres, images
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.errors import BAD_IMAGE, UNREADABLE, UNUSABLE, Skip, SourceError, is_of_a_record
from xgenmm_jax.data.records import Caption
from xgenmm_jax.data.rows import order, quarantine
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.rows.quarantine import SampleIds
from xgenmm_jax.data.source import Records, Source
from xgenmm_jax.data.text.caption_tokens import CaptionTokens


class CaptionBatch(NamedTuple):
    """Images and their captions. The row of an unreadable one is empty: no token is valid, no loss counts it."""

    pixels: UInt8[ArrayLike, "n h w 3"]
    token_ids: Int32[ArrayLike, "n T"]
    """From the first token to the end token, then padding."""
    valid: Bool[ArrayLike, "n T"]
    image_ids: UInt32[ArrayLike, " n"]
    """Equal where the pixels are; of drawn parts of images (`RandomCrops`), where the files of these are."""
    is_cut: Bool[ArrayLike, " n"]
    """Whether the caption had more tokens than the row."""


@dataclass(frozen=True)
class CaptionData:
    """Batches of captions.

    mixture: (source, weight); every source must give captions. tokens: T; longer captions are cut. threads: of each
    host. ahead: batches that are made before they are asked for.

    Raises ValueError for numbers out of range.
    """

    mixture: tuple[tuple[Source, float], ...]
    tokenizer: str
    image_size_px: int
    batch_rows: int
    tokens: int
    threads: int = 2
    ahead: int = 4

    def __post_init__(self):
        # From an opening to an end there is room for a word.
        for name, least in (("image_size_px", 1), ("batch_rows", 1), ("tokens", 3), ("threads", 1), ("ahead", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"data.{name}: got {getattr(self, name)}, wanted {least} or more.")


def caption_batches(
    config: CaptionData,
    words: CaptionTokens,
    seed: int,
    state: State,
    host_index: int = 0,
    host_count: int = 1,
) -> Iterator[tuple[CaptionBatch, list[str], State]]:
    """Endless batches; State.row counts samples, State.window stays 0. Close the iterator to end its threads.

    words: how captions become rows. The row of a caption that cannot be read is empty; it is logged, and listed in
    `skipped` of the ids. Raises ValueError where not one of many can be read.
    """
    if config.batch_rows % host_count:
        raise ValueError(f"data: {host_count} hosts cannot share {config.batch_rows} rows; make batch_rows a multiple.")
    sources = [source.open() for source, _ in config.mixture]
    # Rows are made ahead by threads; each host makes its own share of every batch.
    share = config.batch_rows // host_count
    pool = ThreadPoolExecutor(config.threads, "captions")
    assert State(*state).row % config.batch_rows == 0, state
    waiting: deque = deque()
    records = sum(len(source) for source, (_, weight) in zip(sources, config.mixture, strict=True) if weight)
    skip_logger, undecoded = quarantine.SkipLogger(), quarantine.Undecoded(min(max(share, 64), records))
    # What sources left out when they were opened is told once, with the first batch.
    opened = quarantine.at_opening(sources) if host_index == 0 else []
    start = State(*state).row
    try:
        while True:
            while len(waiting) <= config.ahead:
                first = start + host_index * share
                waiting.append(pool.submit(_make, config, sources, words, seed, first, share))
                start += config.batch_rows
            rows, ids, skipped = waiting.popleft().result()
            ids, opened = SampleIds.of(ids, [*opened, *skipped]), []
            skip_logger.log(ids.skipped)
            undecoded.check(ids.skipped, bool(rows.valid.any()))
            yield rows, ids, State(0, start - len(waiting) * config.batch_rows)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _make(
    config: CaptionData,
    sources: list[Records],
    words: CaptionTokens,
    seed: int,
    start: int,
    count: int,
) -> tuple[CaptionBatch, list[str], list[Skip]]:
    phases = [order.Phase(0, tuple(weight for _, weight in config.mixture))]
    shards = [order.Shards.one(len(source)) for source in sources]
    draws = order.draws(phases, shards, seed, count, start // count)
    side = config.image_size_px
    view = AnyRes(grids=(), view_px=side, view_cells=1)
    rows = CaptionBatch(
        np.zeros((count, side, side, 3), np.uint8),
        np.full((count, config.tokens), words.pad, np.int32),
        np.zeros((count, config.tokens), bool),
        np.zeros(count, np.uint32),
        np.zeros(count, bool),
    )
    ids, skipped = [], []
    for number, draw in enumerate(map(draws.draw, range(count))):
        # `reason` follows the record through its stages, for what is told of one that fails.
        source, record_id, reason = sources[draw.component], f"record {draw.record}", UNREADABLE
        try:
            record = source.record(draw.record, draw.rng(seed))
            record_id = record.id
            if not isinstance(record, Caption):
                kind = type(record).__name__
                raise SourceError(f"data: {record.id} is a {kind}; this run trains on captions alone.")
            reason = UNUSABLE
            tokens, is_cut = words.row(record.text, config.tokens)
            reason = BAD_IMAGE
            pixels = anyres.crops(record.image.load(), view)[0]
            image_id = zlib.crc32(pixels.tobytes() if record.whole is None else images.encoded(record.whole))
        except Exception as error:
            if not is_of_a_record(error):
                error.add_note(f"Raised at {record_id} of {source.name}.")
                raise
            skipped.append(quarantine.skip_of(error, source.name, getattr(error, "record", record_id), reason))
            ids.append("")
            continue
        # Written when all of the record could be read: the row of a skipped one stays empty.
        rows.pixels[number], rows.image_ids[number] = pixels, image_id
        rows.token_ids[number, : len(tokens)] = tokens
        rows.valid[number, : len(tokens)] = True
        rows.is_cut[number] = is_cut
        ids.append(record.id)
    return rows, ids, skipped
