"""The order of samples: a mixture as an infinite stream that any host can look up at any window.

Sample n of the stream is draw k of component m(n). Everything here is a pure function of integers, so hosts, workers
and resumed runs agree without talking. An epoch of a source goes through its shards in groups, so a window touches few.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

from jaxtyping import Bool, Int64, UInt64
import numpy as np

from xgenmm_jax.data.rows.phases import Phase, drawn_before, period_of, span_at, spans_of

_ROUNDS = 5
# The last word of a key keeps these streams apart from each other and from that of a draw, whose key is
# (seed, component, record, epoch).
_PERMUTATION, _ROWS, _SHARDS = 1, 2, 3
_SOURCES, _EPOCHS = 256, 2
"""How many sources' orders are kept at once, and epochs of each: a window ends one epoch and begins the next."""


class State(NamedTuple):
    """Where a run is in its data: the next row is `row` of `window`. The same on every host."""

    window: int = 0
    row: int = 0


class Draw(NamedTuple):
    """One sample of the stream before it is read."""

    component: int
    record: int
    epoch: int

    def rng(self, seed: int) -> np.random.Generator:
        """The source of every random choice inside the record."""
        return np.random.default_rng((seed, self.component, self.record, self.epoch))


class Draws(NamedTuple):
    """Samples of the stream, one after the other. `len` is their number."""

    component: Int64[np.ndarray, " n"]
    record: Int64[np.ndarray, " n"]
    epoch: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.component)

    def draw(self, i: int) -> Draw:
        return Draw(int(self.component[i]), int(self.record[i]), int(self.epoch[i]))


class Shards(NamedTuple):
    """What the order knows of a source. The arrays are not to be changed afterwards: what follows from them is kept.

    ends: records up to the end of each shard, all shards in the order of their names; [3, 3, 7] are shards of 3, 0 and
    4 records. held_out: True for shards that are set aside and never drawn. group_shards: how many shards an epoch goes
    through at a time. held_out_one_in: of the other shards every so many-th record is set aside too: with 3, records 2,
    5, 8, ... of each; 0: none. draws_held_out: what is set aside is drawn, and nothing else.
    """

    ends: Int64[np.ndarray, " shards"]
    held_out: Bool[np.ndarray, " shards"] | None = None
    group_shards: int = 16
    held_out_one_in: int = 0
    draws_held_out: bool = False

    @classmethod
    @functools.lru_cache(maxsize=_SOURCES)  # the same arrays each time, so that the order that follows is found again
    def one(cls, records: int) -> "Shards":
        """A source that is not cut into shards."""
        return cls(np.array([records], np.int64))

    @property
    def sizes(self) -> Int64[np.ndarray, " shards"]:
        """Records of each shard."""
        return np.diff(self.ends, prepend=0)

    @property
    def are_held_out(self) -> Bool[np.ndarray, " shards"]:
        """`held_out`, also where none is."""
        return np.zeros(len(self.ends), bool) if self.held_out is None else self.held_out

    def drawn(self) -> Int64[np.ndarray, " shards"]:
        """Of each shard, how many records are drawn."""
        one_in = self.held_out_one_in
        assert one_in == 0 or one_in > 1, one_in
        aside = np.where(self.are_held_out, self.sizes, self.sizes // one_in if one_in else 0)
        return aside if self.draws_held_out else self.sizes - aside

    def numbers(
        self, shards: Int64[np.ndarray, " n"], drawn: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Numbers in their shards of the drawn records that are number `drawn` among those of the shard.

        Example: with held_out_one_in 3, records 0, 1, 2, 3 that are drawn of a shard are its 0, 1, 3, 4.
        """
        one_in = self.held_out_one_in
        if not one_in:
            return drawn
        if self.draws_held_out:
            return np.where(self.are_held_out[shards], drawn, (drawn + 1) * one_in - 1)
        return drawn + drawn // (one_in - 1)


def draws(phases: Sequence[Phase], sources: Sequence[Shards], seed: int, window_samples: int, window: int) -> Draws:
    """The samples of a window, `window_samples` of the stream.

    Draw k of a component is record k mod n of an epoch's order of its n records, a new one each epoch; draws before
    the weights changed are counted, so an epoch goes on where it was. A record's number counts those of all shards,
    held-out ones too, in the order of names.

    Raises ValueError where phases or a source are not what they should be.
    """
    spans = spans_of(tuple(phases), len(sources), window_samples)
    first = window * window_samples
    span = span_at(spans, first)
    components, counts = period_of(span.parts)
    numbers = np.arange(first - span.start, first - span.start + window_samples, dtype=np.int64)
    periods, offsets = np.divmod(numbers, len(components))
    drawn = components[offsets]
    parts, before = np.array(span.parts, np.int64), np.array(span.before, np.int64)
    ks = before[drawn] + periods * parts[drawn] + counts[offsets, drawn]
    records, epochs = np.empty(window_samples, np.int64), np.empty(window_samples, np.int64)
    for component, source in enumerate(sources):
        order = _order_of(_Same(source), seed, component)
        of_component = np.flatnonzero(drawn == component)
        records[of_component], epochs[of_component] = order.look_up(ks[of_component])
    return Draws(drawn, records, epochs)


def reached(
    phases: Sequence[Phase], sources: Sequence[Shards], seed: int, window_samples: int, windows: range
) -> list[Int64[np.ndarray, " reached"]]:
    """Of each source, the shards whose groups the windows touch: their numbers in the order of names, ascending.

    From numbers of draws alone: it takes as long for a hundred thousand windows as for one. Shards without records and
    held-out ones are none of them.
    """
    assert windows.step == 1, windows
    spans = spans_of(tuple(phases), len(sources), window_samples)
    ends = [number * window_samples for number in (windows.start, max(windows.start, windows.stop))]
    drawn = [drawn_before(span_at(spans, number), number) for number in ends]
    return [
        _order_of(_Same(source), seed, component).reached(drawn[0][component], drawn[1][component])
        for component, source in enumerate(sources)
    ]


def shard_of(
    source: Shards, records: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The shards of records, and their numbers in them: with ends [3, 7], record 5 is number 2 of shard 1."""
    shards = np.searchsorted(source.ends, records, side="right")
    starts = np.concatenate([[0], source.ends])
    return shards, records - starts[shards]


class _Same:
    """A source as a key: the same arrays, which the key keeps alive, and not what they hold."""

    def __init__(self, source: Shards):
        self.source = source
        self._ids = id(source.ends), id(source.held_out), *source[2:]

    def __hash__(self) -> int:
        return hash(self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._ids == other._ids


class _Epoch(NamedTuple):
    """An epoch of a source: its shards in the order of their groups, by name in a group.

    ends: records up to the end of each of these shards; group_ends: of each group.
    """

    shards: Int64[np.ndarray, " drawn"]
    ends: Int64[np.ndarray, " drawn"]
    group_ends: Int64[np.ndarray, " groups"]


class _SourceOrder:
    """The order of one source's records."""

    def __init__(self, source: Shards, seed: int, component: int):
        self._key, self._group, self._source = (seed, component), source.group_shards, source
        self._starts = np.concatenate([[0], source.ends[:-1]])
        whole = source.sizes
        assert whole.min(initial=0) >= 0 and len(source.are_held_out) == len(whole) and self._group > 0, source
        if not whole.sum():
            raise ValueError(f"mixture: source {component} has 0 records; check its files or leave it out.")
        self._sizes = source.drawn()
        self._drawn = np.flatnonzero(self._sizes > 0)
        if not len(self._drawn):
            raise ValueError(
                f"mixture: source {component} sets no record aside; hold out a shard, or one in some of its records."
                if source.draws_held_out
                else f"mixture: source {component} holds out each of its {int((whole > 0).sum())} shards with "
                "records; wanted one to train on, so hold out fewer or cut it into more."
            )
        self._records = int(self._sizes[self._drawn].sum())
        # No method is kept: it would hold this object in a cycle, which only the garbage collector frees.
        ordered = functools.partial(_order_epoch, self._key, self._group, self._drawn, self._sizes)
        self._epoch = functools.lru_cache(maxsize=_EPOCHS)(ordered)

    def look_up(self, ks: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Records and epochs of draws by number."""
        epochs, offsets = np.divmod(ks, self._records)
        records = np.empty_like(ks)
        for number in np.unique(epochs):
            epoch = self._epoch(int(number))
            of_epoch = np.flatnonzero(epochs == number)
            groups = np.searchsorted(epoch.group_ends, offsets[of_epoch], side="right")
            for group in np.unique(groups):
                of_group = of_epoch[groups == group]
                start = epoch.group_ends[group - 1] if group else np.int64(0)
                key = _key(*self._key, int(number), int(group), _PERMUTATION)
                size = int(epoch.group_ends[group] - start)
                offsets[of_group] = start + permute(offsets[of_group] - start, size, key)
            # From an offset in the epoch to the shard that lies there, and to the record's number over all shards.
            at = np.searchsorted(epoch.ends, offsets[of_epoch], side="right")
            shards = epoch.shards[at]
            drawn = offsets[of_epoch] - (epoch.ends[at] - self._sizes[shards])
            records[of_epoch] = self._starts[shards] + self._source.numbers(shards, drawn)
        return records, epochs

    def reached(self, first: int, stop: int) -> Int64[np.ndarray, " reached"]:
        """The shards of the groups that draws first .. stop - 1 lie in, ascending."""
        if first == stop:
            return np.empty(0, np.int64)
        (epoch, offset), (last_epoch, last_offset) = (divmod(k, self._records) for k in (first, stop - 1))
        if last_epoch - epoch > 1:
            return self._drawn  # an epoch between is drawn whole
        pieces = [(epoch, offset, last_offset)]
        if epoch < last_epoch:
            pieces = [(epoch, offset, self._records - 1), (last_epoch, 0, last_offset)]
        touched = []
        for number, begin, end in pieces:
            order = self._epoch(number)
            first_group, last_group = np.searchsorted(order.group_ends, (begin, end), side="right")
            touched.append(order.shards[first_group * self._group : (last_group + 1) * self._group])
        return np.unique(np.concatenate(touched))


def _order_epoch(
    key: tuple[int, int],
    group_shards: int,
    drawn: Int64[np.ndarray, " drawn"],
    sizes: Int64[np.ndarray, " shards"],
    epoch: int,
) -> _Epoch:
    count = len(drawn)
    order = permute(np.arange(count), count, _key(*key, epoch, 0, _SHARDS))
    # In a group shards stand by name, so that a source of one group has one order of shards.
    group = np.arange(count) // group_shards
    shards = drawn[order[np.lexsort((order, group))]]
    ends = np.cumsum(sizes[shards])
    lasts = np.minimum(np.arange(group_shards, count + group_shards, group_shards), count) - 1
    return _Epoch(shards, ends, ends[lasts])


@functools.lru_cache(maxsize=_SOURCES)
def _order_of(same: _Same, seed: int, component: int) -> _SourceOrder:
    return _SourceOrder(same.source, seed, component)


def _key(*words: int) -> UInt64[np.ndarray, " rounds"]:
    return np.random.SeedSequence(words).generate_state(_ROUNDS, np.uint64)


def permute(
    indices: Int64[np.ndarray, " n"], length: int, key: UInt64[np.ndarray, " rounds"]
) -> Int64[np.ndarray, " n"]:
    """Where a keyed permutation of 0 .. length - 1 takes these indices, without holding the permutation.

    A Feistel network over the next even power of two; values that fall outside walk on until they are inside.
    """
    if length == 1:
        return np.zeros_like(indices)
    half_bits = np.uint64(-(-(length - 1).bit_length() // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    result = indices.astype(np.uint64)
    walking = np.ones(len(result), bool)
    while walking.any():
        value = result[walking]
        left, right = value >> half_bits, value & mask
        for round_key in key:
            left, right = right, left ^ (_mix(right + round_key) & mask)
        result[walking] = left << half_bits | right
        walking[walking] = result[walking] >= length
    return result.astype(np.int64)


def _mix(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """splitmix64's finaliser; overflow wraps."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_order(rows: int, seed: int, window: int) -> Int64[np.ndarray, " rows"]:
    """The order in which a window's packed rows are trained on."""
    return np.random.default_rng((seed, window, 0, 0, _ROWS)).permutation(rows).astype(np.int64)
