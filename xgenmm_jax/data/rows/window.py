"""Windows of the stream of samples: which samples, in which rows, in which order, before an image is decoded."""

import dataclasses
from typing import NamedTuple

from xgenmm_jax.data.records import Sample
from xgenmm_jax.data.rows import order, packing, quarantine
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.order import Draw
from xgenmm_jax.data.rows.packing import Size
from xgenmm_jax.data.rows.quarantine import Skip
from xgenmm_jax.data.source import Records
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import Tokenizer


class Window(NamedTuple):
    """Packed samples, before images are decoded."""

    rows: list[list[Sample]]  # in the order of training
    skipped: tuple[Skip, ...]  # records that cannot be used, and samples that no row could hold: in none of the rows


def open_sources(config: DataConfig) -> list[Records]:
    """The opened sources of the mixture, in its order."""
    return [source.open() for source, _ in config.mixture]


def plan_window(config: DataConfig, sources: list[Records], tokenizer: Tokenizer, seed: int, number: int) -> Window:
    """The rows of window `number`: a pure function of its arguments and the data, the same on every host and worker.

    A record that cannot be read, tokenised or measured is left out, and what could be packed is packed without it.

    Raises:
        ValueError: a sample that no row can hold where these are errors, pairs mixed with other samples, a source that
            is gone.
    """
    # What is drawn, and what of it can be used.
    weights = [weight for _, weight in config.mixture]
    lengths = [len(source) for source in sources]
    samples: list[Sample] = []
    skipped: list[Skip] = []
    for draw in order.draws(weights, lengths, seed, number * config.window, config.window):
        sample = _sample(config, sources[draw.component], draw, tokenizer, seed)
        if isinstance(sample, Skip):
            skipped.append(sample)
        else:
            samples.append(sample)
    pairs = sum(sample.rejected_ids is not None for sample in samples)
    if pairs not in (0, len(samples)):
        raise ValueError(f"data: {pairs} of {len(samples)} samples are preference pairs; give them their own mixture.")
    # Which samples share a row, and in which order the rows are trained on.
    sizes = packing.array_of([size_of(sample, config) for sample in samples])
    packed = packing.pack(sizes, packing.budget(config.row))
    shuffled = order.row_order(len(packed), seed, number)
    return Window([[samples[i] for i in packed[row]] for row in shuffled], tuple(skipped))


def _sample(config: DataConfig, source: Records, draw: Draw, tokenizer: Tokenizer, seed: int) -> Sample | Skip:
    """The tokenised record of a draw, cut to a row; or why it is left out."""
    record_id, reason = f"record {draw.record}", quarantine.UNREADABLE
    try:
        record = source.record(draw.record, draw.rng(seed))
        record_id, reason = record.id, quarantine.UNUSABLE
        sample = chat.sample(record, tokenizer, config.chat)
        layouts = packing.layouts_of(sample.images, config.anyres)
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


def size_of(sample: Sample, config: DataConfig) -> Size:
    """What a sample takes of each budget of a row."""
    return packing.measure(sample, packing.layouts_of(sample.images, config.anyres), config.row)
