"""Measuring a shard: every record is read, tokenized and forgotten; what is kept is how large its samples are."""

from concurrent.futures import ThreadPoolExecutor
import dataclasses
import logging
from typing import Any, NamedTuple

import numpy as np

from xgenmm_jax.data.errors import UNREADABLE, UNUSABLE, is_of_a_record, reason_of
from xgenmm_jax.data.index.shapes import check_sides, shapes_of
from xgenmm_jax.data.index.sizes import ShardSizes
from xgenmm_jax.data.readers.base import Reader, every_record
from xgenmm_jax.data.records import Caption, Document, Sample
from xgenmm_jax.data.storage.base import Shard, SizedShard
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer

LOG = logging.getLogger(__name__)

READ_AHEAD = 64
"""Records of a shard that are read at a time, by THREADS threads."""
THREADS = 8


class Measurer(NamedTuple):
    """What makes a sample of a record, and so decides how large it is."""

    tokenizer: Tokenizer
    chat: ChatStyle

    def described(self) -> dict[str, Any]:
        """As the index keeps it."""
        return {"tokenizer": self.tokenizer.fingerprint, "chat": self.chat.described()}


class Measured(NamedTuple):
    """The samples of one record, one a choice; or why it has none. dropped, lost: of its images (`records.py`)."""

    samples: list[Sample]
    reason: str = ""
    detail: str = ""
    dropped: int = 0
    lost: tuple[str, ...] = ()


def measure_shard(shard: Shard, reader: Reader, measurer: Measurer) -> ShardSizes:
    """The sizes of all records of a shard. Raises SourceError where the shard cannot be read."""
    samples: list[Sample | None] = []
    counts: list[int] = []
    bad: dict[int, tuple[str, str]] = {}
    dropped = 0
    lost: list[str] = []
    if isinstance(shard, SizedShard):
        shard = shard.without_pixels((*reader.fields, *reader.optional))
    with ThreadPoolExecutor(THREADS, "measure") as pool:
        for start in range(0, len(shard), READ_AHEAD):
            numbers = range(start, min(start + READ_AHEAD, len(shard)))
            for number, one in zip(
                numbers, pool.map(lambda n: _measured(shard, n, reader, measurer), numbers), strict=True
            ):
                if one.reason:
                    bad[number] = one.reason, one.detail
                samples += one.samples or [None]
                counts.append(max(1, len(one.samples)))
                dropped += one.dropped + len(one.lost)
                lost += one.lost[: 1 - len(lost)]
    if lost:
        LOG.warning("data: pages that cannot be opened are left out of records, the first: %s", lost[0])
    return ShardSizes(shapes_of(samples, measurer.tokenizer), np.cumsum(counts, dtype=np.int64), bad, dropped)


def _measured(shard: Shard, number: int, reader: Reader, measurer: Measurer) -> Measured:
    reason = UNREADABLE
    try:
        raw = shard.read(number)
        records = every_record(reader, raw)
        reason = UNUSABLE
        samples = [_without_pixels(chat.sample(record, measurer.tokenizer, measurer.chat)) for record in records]
        for sample in samples:
            check_sides(sample)
    except Exception as error:
        if not is_of_a_record(error):
            error.add_note(f"Raised at record {number}, read by {type(reader).__name__}.")
            raise
        return Measured([], reason_of(error, reason), (str(error).splitlines() or [type(error).__name__])[0])
    dropped = max(record.dropped if isinstance(record, Document) else 0 for record in records)
    return Measured(samples, dropped=dropped, lost=records[0].lost if isinstance(records[0], Caption) else ())


def _without_pixels(sample: Sample) -> Sample:
    """The sample without the encoded bytes that its images hold."""
    return dataclasses.replace(
        sample, images=tuple(dataclasses.replace(image, load=_no_load) for image in sample.images)
    )


def _no_load():
    raise AssertionError("measuring decodes nothing")
