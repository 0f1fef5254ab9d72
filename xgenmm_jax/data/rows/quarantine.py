"""What of the data a run leaves out, and why: a `Skip` for each record, which the run counts, logs and writes down.

A record that cannot be used never ends a run, and is always reported. An error that concerns more than one record
ends it: a missing shard, a machine without memory or descriptors, a sample that a row should hold and cannot.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
import logging
from typing import Any

from xgenmm_jax.data.errors import CUT_SHORT, NOT_BAD, Skip, SourceError, reason_of

LOG = logging.getLogger(__name__)

LAST = 10_000
"""Samples of a source among which bad ones are counted."""

MOST_LOGGED = 50
"""Bad records of one source and reason that are logged one by one, of those that a row is too short for the first
alone; a run keeps all of them in its folder."""


class SampleIds(list[str]):
    """What a batch holds, one string a row: the ids of its samples, joined by " + ".

    skipped: what it does not hold. seen: what it holds of each source. Here, so that whoever hands on rows, ids and
    state hands on these too.
    """

    skipped: tuple[Skip, ...] = ()
    seen: Mapping[str, Any] = {}

    @classmethod
    def of(cls, rows: Iterable[str], skipped: Iterable[Skip], seen: Mapping[str, Any] | None = None) -> "SampleIds":
        ids = cls(rows)
        ids.skipped = tuple(skipped)
        ids.seen = {} if seen is None else dict(seen)
        return ids


def skip_of(error: Exception, source: str, record: str, reason: str) -> Skip:
    """The skip of a record for which `is_of_a_record` holds. record: its id. reason: but for a `LeftOut`."""
    return Skip(source, record, reason_of(error, reason), (str(error).splitlines() or [type(error).__name__])[0])


def at_opening(sources: Sequence[object]) -> list[Skip]:
    """What sources left out when they were opened: their `left_out`, where they have it."""
    return [skip for source in sources for skip in getattr(source, "left_out", ())]


def in_words(skipped: Iterable[Skip]) -> str:
    """ "2 unreadable record (first: a/7: no file 'x.png'), 1 too long for a row (...)"."""
    first: dict[str, Skip] = {}
    counts: Counter[str] = Counter()
    for skip in skipped:
        first.setdefault(skip.reason, skip)
        counts[skip.reason] += skip.count
    return ", ".join(
        f"{count:,} {reason} (first: {first[reason].record}: {first[reason].detail.rstrip('.')})"
        for reason, count in counts.items()
    )


class Undecoded:
    """Ends a run that would go on without any sample, as when the images' folder was taken away.

    most: records one after the other of which not one can be used. One that is tried again is no further one.
    """

    def __init__(self, most: int):
        self._most = most
        self._damaged: dict[tuple[str, str], Skip] = {}

    def check(self, skipped: Iterable[Skip], is_any: bool) -> None:
        """Counts a batch; is_any: whether it holds a sample. Raises SourceError where there were too many."""
        if is_any:
            self._damaged = {}
            return
        for skip in skipped:
            if not skip.at_opening and skip.reason != CUT_SHORT:
                self._damaged.setdefault((skip.source, skip.record), skip)
        if len(self._damaged) >= self._most:
            why = in_words(self._damaged.values())
            raise SourceError(f"data: not one of {len(self._damaged)} samples can be used: {why}; mend the data.")


class BadRates:
    """Ends a run that leaves out too much of a source: more than a share of LAST samples of it.

    most: the share, of records that are bad; what a row is too short for does not count.
    """

    def __init__(self, most: float):
        self._most = most
        self._batches: dict[str, deque[tuple[int, int]]] = {}
        self._sums: dict[str, tuple[int, int]] = {}

    def check(self, skipped: Sequence[Skip], tried: Mapping[str, int]) -> None:
        """Counts a batch. tried: samples that were to be read, by source; those of `skipped` that no row has are more.

        Raises SourceError with the reasons where it was too much.
        """
        bad = Counter()
        for skip in skipped:
            if not skip.at_opening and skip.reason not in NOT_BAD:
                bad[skip.source] += skip.count
        for source in {*tried, *bad}:
            batches = self._batches.setdefault(source, deque())
            batches.append((max(tried.get(source, 0), bad[source]), bad[source]))
            total, count = self._sums.get(source, (0, 0))
            total, count = total + batches[-1][0], count + batches[-1][1]
            while total - batches[0][0] >= LAST:
                samples, bad_samples = batches.popleft()
                total, count = total - samples, count - bad_samples
            self._sums[source] = total, count
            if count > self._most * LAST:
                of_source = [skip for skip in skipped if skip.source == source and skip.reason not in NOT_BAD]
                raise SourceError(
                    f"data: {count:,} samples of {source} cannot be used, more than {self._most:.1%} of {LAST:,} one "
                    f"after the other; lately {in_words(of_source)}. A run that had begun lists all in its "
                    "skipped.jsonl; mend the data, or raise data.max_bad_rate (--data.max-bad-rate)."
                )


class SkipLogger:
    """Logs what is left out, each record once; at most MOST_LOGGED of a source and reason, or one."""

    def __init__(self):
        self._logged: dict[tuple[str, str], set[str]] = {}

    def log(self, skipped: Iterable[Skip]) -> None:
        opened: dict[str, list[Skip]] = {}
        for skip in skipped:
            if skip.at_opening:
                opened.setdefault(skip.source, []).append(skip)
                continue
            logged = self._logged.setdefault((skip.source, skip.reason), set())
            most = 1 if skip.reason in NOT_BAD else MOST_LOGGED
            if skip.record in logged or len(logged) >= most:
                continue
            logged.add(skip.record)
            last = "; further ones of this kind are counted alone" if len(logged) == most else ""
            LOG.warning("data: left out %s of %s, %s: %s%s", skip.record, skip.source, skip.reason, skip.detail, last)
        for source, skips in opened.items():
            count = sum(skip.count for skip in skips)
            LOG.warning("data: %s leaves out %s entries: %s", source, f"{count:,}", in_words(skips))
