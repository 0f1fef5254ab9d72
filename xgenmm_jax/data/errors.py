"""Data that cannot be used: errors of a source or of a record, and the `Skip` that a run counts and writes down."""

import errno
from typing import NamedTuple

from xgenmm_jax.requests import RequestError

UNREADABLE = "unreadable record"
UNUSABLE = "unusable record"
NO_ROW = "too long for a row"
BAD_IMAGE = "unreadable image"
CUT_SHORT = "cut to a row"
NOT_AS_INDEXED = "not as indexed"
LOST_PAGE = "unreadable page"
"""Reasons: the record or a file that it names cannot be read; its text and images make no sample; too_long="drop"; an
image of it cannot be decoded; it is used without its end; its text or images have another size than its index says;
a page of it cannot be opened, and the others are used.
Sources have further ones for what they leave out when they are opened."""

FEW_IMAGES = "too few images"
ONE_IMAGE = "share of single images"
LAST_IMAGE = "only image is last"
NO_LANGUAGE = "no text in the language"
"""Reasons of a `LeftOut`, by the options of a reader (`readers/interleaved.py`, `readers/tux_paint.py`)."""

NOT_BAD = frozenset({NO_ROW, CUT_SHORT, FEW_IMAGES, ONE_IMAGE, LAST_IMAGE, NO_LANGUAGE})
"""Reasons that say nothing against a record: the row is too short for it, or its reader's options leave it out."""


# Errors of the machine, not of a record: the same record may be read a moment later, or on another host.
_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        "EMFILE", "ENFILE", "ENOMEM", "EIO", "ENOSPC", "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "ENOTCONN", "ENODEV",
        "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED",
        "EREMOTEIO",
    )
    if hasattr(errno, name)
)  # fmt: skip


class SourceError(RequestError):
    """A source as a whole cannot be read: no record of it is to blame, and a run does not go on without it."""


class RecordError(ValueError):
    """A record that cannot be used, and its id."""

    def __init__(self, record: str, cause: object):
        super().__init__(record, cause)
        self.record = record

    def __str__(self) -> str:
        return f"data: {self.args[0]}: {self.args[1]}"


class LeftOut(RecordError):
    """A record that could be used and that its reader's options leave out. reason: one of few, in NOT_BAD."""

    def __init__(self, record: str, reason: str, cause: object):
        super().__init__(record, cause)
        self.reason = reason

    def __reduce__(self) -> tuple:
        return LeftOut, (self.record, self.reason, self.args[1])


def reason_of(error: BaseException, otherwise: str) -> str:
    """The reason that an error brings, or the one by which errors at this place are counted."""
    return error.reason if isinstance(error, LeftOut) else otherwise


def shown(value: object, most: int = 100) -> str:
    """What an error says of a value that is not what was wanted: the first characters of it.

    Values nest as deeply as the parser of JSON goes, and writing them may take more of the stack than reading did.
    """
    try:
        return str(value)[:most]
    except RecursionError:
        return f"a {type(value).__name__} that nests too deeply to be shown"


class Skip(NamedTuple):
    """Something that is left out."""

    source: str
    record: str
    """Its id, or the first of `count`."""
    reason: str
    """One of few, by which they are counted."""
    detail: str
    """The error: what is wrong, and with which file."""
    count: int = 1
    at_opening: bool = False
    """Whether the source left it out when it was opened: it is not drawn at all, in no epoch."""
    shard: str = ""
    """File of the source that holds it, where the source has shards."""


def is_of_a_record(error: BaseException) -> bool:
    """Whether an error of reading, tokenising, measuring or decoding a record says that this record is bad."""
    if isinstance(error, SourceError) or not isinstance(error, ValueError | OSError):
        return False
    cause: BaseException | None = error
    seen: set[int] = set()  # an error that was raised "from" itself is its own cause
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, OSError) and cause.errno in _MACHINE:
            return False
        seen.add(id(cause))
        cause = cause.__cause__
    return True
