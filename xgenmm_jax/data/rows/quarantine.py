"""What of the data a run leaves out, and why: a `Skip` for each record, which the run counts, logs and writes down.

A record that cannot be used never ends a run, and is always reported. An error that concerns more than one record
ends it: a missing shard, a machine without memory or descriptors, a sample that a row should hold and cannot.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
import logging

from xgenmm_jax.data.errors import Skip, SourceError

LOG = logging.getLogger(__name__)

UNREADABLE = "unreadable record"
UNUSABLE = "unusable record"
NO_ROW = "too long for a row"
BAD_IMAGE = "unreadable image"
"""Reasons: the record or a file that it names cannot be read; its text and images make no sample; too_long="drop"; a
image of it cannot be decoded. Sources have further ones for what they leave out when they are opened."""

MOST_LOGGED = 50
"""Records of one source and reason that are logged one by one; a run keeps all of them in its folder."""


class SampleIds(list[str]):
    """What a batch holds, one string a row: the ids of its samples, joined by " + ".

    skipped: what it does not hold. Here, so that whoever hands on rows, ids and state hands on this too.
    """

    skipped: tuple[Skip, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[str], skipped: Iterable[Skip]) -> "SampleIds":
        ids = cls(rows)
        ids.skipped = tuple(skipped)
        return ids


def skip_of(error: Exception, source: str, record: str, reason: str) -> Skip:
    """The skip of a record for which `is_of_a_record` holds. record: its id."""
    return Skip(source, record, reason, (str(error).splitlines() or [type(error).__name__])[0])


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

    most: samples one after the other of which not one can be used.
    """

    def __init__(self, most: int):
        self._most, self._count = most, 0

    def check(self, skipped: Iterable[Skip], is_any: bool) -> None:
        """Counts a batch; is_any: whether it holds a sample. Raises SourceError where there were too many."""
        damaged = [skip for skip in skipped if not skip.at_opening]
        self._count = 0 if is_any else self._count + len(damaged)
        if self._count >= self._most:
            why = in_words(damaged)
            raise SourceError(f"data: not one of {self._count} samples can be used: {why}; mend the data.")


class SkipLogger:
    """Logs what is left out, each record once; at most MOST_LOGGED of a source and reason."""

    def __init__(self):
        self._logged: dict[tuple[str, str], set[str]] = {}

    def log(self, skipped: Iterable[Skip]) -> None:
        opened: dict[str, list[Skip]] = {}
        for skip in skipped:
            if skip.at_opening:
                opened.setdefault(skip.source, []).append(skip)
                continue
            logged = self._logged.setdefault((skip.source, skip.reason), set())
            if skip.record in logged or len(logged) >= MOST_LOGGED:
                continue
            logged.add(skip.record)
            last = "; further ones of this kind are counted alone" if len(logged) == MOST_LOGGED else ""
            LOG.warning("data: left out %s of %s, %s: %s%s", skip.record, skip.source, skip.reason, skip.detail, last)
        for source, skips in opened.items():
            count = sum(skip.count for skip in skips)
            LOG.warning("data: %s leaves out %s entries: %s", source, f"{count:,}", in_words(skips))
