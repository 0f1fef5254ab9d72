"""Windows of the stream of samples: which samples share a row and in which order, from their sizes alone."""

from collections.abc import Callable
import functools
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Int64
import numpy as np

from xgenmm_jax.data.errors import CUT_SHORT, NO_ROW, UNREADABLE, UNUSABLE, Skip, is_of_a_record
from xgenmm_jax.data.index import shapes as shapes_
from xgenmm_jax.data.index.measure import Measurer
from xgenmm_jax.data.index.shapes import Shapes
from xgenmm_jax.data.rows import filling, order, packing, quarantine
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.fitting import Fitted, fit_shapes
from xgenmm_jax.data.rows.order import Draw, Draws, Shards
from xgenmm_jax.data.rows.packing import Size
from xgenmm_jax.data.sharded import ShardedSource, check_own_indexes
from xgenmm_jax.data.source import Records, without_changes
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import Tokenizer


@runtime_checkable
class SizedRecords(Protocol):
    """Records of a source that knows their sizes without reading them: `sharded.ShardedRecords`."""

    shards: Shards

    def shapes_of(
        self, records: Int64[np.ndarray, " n"], rng_of: Callable[[int], np.random.Generator], measurer: Measurer
    ) -> tuple[Shapes, list[Skip]]: ...

    def label_of(self, index: int) -> str: ...


class Planned(NamedTuple):
    """A sample of a row, before its record is read."""

    draw: Draw
    size: Size
    """What it takes of the row, whether or not it can be read."""
    image_px: tuple[tuple[int, int], ...]
    """(width, height) of its images as they were measured."""


class Window(NamedTuple):
    """Packed samples, in rows in the order of training."""

    rows: list[list[Planned]]
    skipped: tuple[Skip, ...]
    """Records that are in none of the rows: that cannot be used, that no row could hold; and what cuts have lost."""
    drawn: tuple[int, ...]
    """Samples of each source in the mixture that were drawn, in its order."""


def open_sources(config: DataConfig, may_measure: bool = True) -> list[Records]:
    """The opened sources of the mixture, in its order.

    may_measure: whether indexes of sources may be written, as by `ShardedSource.open`.

    Raises ValueError where one cannot be opened, or two would share an index.
    """
    every = [without_changes(source) for source, _ in config.mixture]
    check_own_indexes(source for source in every if isinstance(source, ShardedSource))
    for (source, _), inner in zip(config.mixture, every, strict=True):
        if inner is not source and isinstance(inner, ShardedSource) and not may_measure:
            inner.open(may_measure)  # `source.open()` would write it
    return [
        source.open(may_measure) if isinstance(source, ShardedSource) else source.open() for source, _ in config.mixture
    ]


def measurer_of(config: DataConfig) -> Measurer:
    """What makes samples of the records of a run. Raises ValueError where its tokenizer cannot be read."""
    return Measurer(Tokenizer.load(config.tokenizer), config.chat)


def plan_window(
    config: DataConfig,
    sources: list[Records],
    measurer: Measurer,
    seed: int,
    number: int,
    shards: list[Shards] | None = None,
) -> Window:
    """The rows of window `number`: a pure function of its arguments and the data, the same on every host.

    shards: what the order draws of each source; by default `shards_of`, what a run trains on.
    Of sources with an index no record is read. A record of another source that cannot be read, tokenized or measured,
    or one that the index tells is bad, is left out, and what could be packed is packed without it.

    Raises:
        ValueError: a sample that no row can hold where these are errors, pairs mixed with other samples, a source that
            is gone.
    """
    shards = shards_of(config, sources) if shards is None else shards
    draws = order.draws(config.order_phases, shards, seed, config.window, number)
    # Of each sample its shape, source by source.
    names: dict[int, str] = {}
    shapes, skipped, indices = [], [], []
    for component, source in enumerate(sources):
        chosen = np.flatnonzero(draws.component == component)
        # No function defined here: its annotation would be a new class each time, which only the collector frees.
        rng_of = functools.partial(_rng_of, draws, seed, chosen)
        of_source, bad, ids = _shapes(config, source, draws.record[chosen], rng_of, measurer)
        names |= {int(chosen[index]): id_ for index, id_ in ids.items()}
        shapes.append(of_source)
        indices.append(chosen)
        skipped += bad
    all_shapes = shapes_.join(shapes).take(np.argsort(np.concatenate(indices)))
    # What of them a row can hold, and which share one.
    fitted = fit_shapes(all_shapes, config.anyres, config.row)
    is_bad = shapes_.is_bad(all_shapes)
    skipped += _left_out(config, sources, draws, names, fitted, is_bad)
    used = np.flatnonzero(fitted.used)
    pairs = int((all_shapes.kinds[used] == shapes_.PAIR).sum())
    if pairs not in (0, len(used)):
        raise ValueError(f"data: {pairs} of {len(used)} samples are preference pairs; give them their own mixture.")
    sizes = fitted.sizes[used]
    packed = filling.pack(sizes, packing.budget(config.row))
    shuffled = order.row_order(len(packed), seed, number)
    planned = _planned(draws, used, sizes, all_shapes.take(used))
    rows = [[planned[i] for i in packed[row]] for row in shuffled]
    drawn = np.bincount(draws.component, minlength=len(sources))
    return Window(rows, tuple(skipped), tuple(drawn.tolist()))


def _rng_of(draws: Draws, seed: int, chosen: Int64[np.ndarray, " n"], index: int) -> np.random.Generator:
    """The generator of the draw at a place in `chosen`, which are numbers of draws."""
    return draws.draw(int(chosen[index])).rng(seed)


def _planned(
    draws: Draws, used: Int64[np.ndarray, " n"], sizes: Int64[np.ndarray, "n 4"], shapes: Shapes
) -> list[Planned]:
    """The samples that rows hold. A cut sample keeps its first images."""
    starts = (shapes.image_ends - np.diff(shapes.image_ends, prepend=0)).tolist()
    image_px = [tuple(px) for px in shapes.image_px.tolist()]
    return [
        Planned(draws.draw(number), Size(*size), tuple(image_px[start : start + size[2]]))
        for number, size, start in zip(used.tolist(), sizes.tolist(), starts, strict=True)
    ]


def shards_of(config: DataConfig, sources: list[Records]) -> list[Shards]:
    """What the order knows of the opened sources: what of them a run trains on."""

    def one(source: Records) -> Shards:
        shards = getattr(source, "shards", None)  # also of records that `Mapped` changes
        shards = Shards.one(len(source)) if shards is None else shards
        if shards.are_held_out.any():
            return shards
        return shards._replace(held_out_one_in=config.held_out_one_in)

    return list(map(one, sources))


def _shapes(
    config: DataConfig,
    source: Records,
    records: Int64[np.ndarray, " n"],
    rng_of: Callable[[int], np.random.Generator],
    measurer: Measurer,
) -> tuple[Shapes, list[Skip], dict[int, str]]:
    """Of a source's draws their shapes, why those that are BAD are, and ids of records where they are known."""
    if isinstance(source, SizedRecords):
        return *source.shapes_of(records, rng_of, measurer), {}
    samples, skipped, ids = [], [], {}
    for index, number in enumerate(records.tolist()):
        ids[index], reason = f"record {number}", UNREADABLE
        try:
            record = source.record(number, rng_of(index))
            ids[index], reason = record.id, UNUSABLE
            sample = chat.sample(record, measurer.tokenizer, measurer.chat)
            shapes_.check_sides(sample)
            packing.layouts_of(sample.images, config.anyres)
        except Exception as error:
            if not is_of_a_record(error):
                error.add_note(f"Raised at {ids[index]} of {source.name}.")
                raise
            sample = None
            skipped.append(quarantine.skip_of(error, source.name, getattr(error, "record", ids[index]), reason))
        samples.append(sample)
    return shapes_.shapes_of(samples, measurer.tokenizer), skipped, ids


def _left_out(
    config: DataConfig,
    sources: list[Records],
    draws: Draws,
    names: dict[int, str],
    fitted: Fitted,
    is_bad: Bool[np.ndarray, " n"],
) -> list[Skip]:
    """Samples that no row can hold, one by one; and what was cut off others, in one Skip a source.

    Raises ValueError for a sample that no row can hold where `too_long="error"`.
    """
    skipped: list[Skip] = []
    for index in np.flatnonzero(~fitted.used & ~is_bad).tolist():
        source, size = sources[draws.component[index]], Size(*fitted.whole[index].tolist())
        name = names.get(index) or label_of(source, int(draws.record[index]))
        if config.row.too_long == "error":
            raise ValueError(packing.too_long(name, size, config.row))
        detail = f"{packing.excess(size, config.row)}, and it has no place to cut"
        skipped.append(Skip(source.name, name, NO_ROW, detail))
    is_cut = fitted.used & (fitted.kept_tokens < fitted.tokens)
    for component in np.unique(draws.component[is_cut]).tolist():
        of_source = np.flatnonzero(is_cut & (draws.component == component))
        lost = int((fitted.tokens - fitted.kept_tokens)[of_source].sum())
        images = int((fitted.images - fitted.sizes[:, 2])[of_source].sum())
        detail = f"{lost:,} of {int(fitted.tokens[of_source].sum()):,} tokens and {images:,} images are cut off"
        first = int(of_source[0])
        name = names.get(first) or label_of(sources[component], int(draws.record[first]))
        skipped.append(Skip(sources[component].name, name, CUT_SHORT, detail, len(of_source)))
    return skipped


def label_of(source: Records, record: int) -> str:
    """What a record is called before it is read."""
    return source.label_of(record) if isinstance(source, SizedRecords) else f"record {record}"
