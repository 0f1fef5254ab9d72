"""What a reader is: a frozen dataclass that turns one published record into one of the project, without any I/O."""

from collections.abc import Iterator
import contextlib
import logging
import threading
from typing import Any, ClassVar, Protocol, runtime_checkable

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.records import Record
from xgenmm_jax.data.storage.base import Raw

LOG = logging.getLogger(__name__)


@runtime_checkable
class Reader(Protocol):
    """Options of reading a family of data sets; a class of `data/readers/`, or of an experiment's file.

    label: names the reader in the index, in messages and, where the source has no name, the source.
    """

    label: ClassVar[str]

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields without which nothing can be read; where a table lacks one, the run ends before its first step."""
        ...

    @property
    def optional(self) -> tuple[str, ...]:
        """Fields that are read where they are there."""
        ...

    def choices(self, raw: Raw) -> int:
        """How many texts the record has to choose from, 1 for most. Which one is drawn is the order's to say."""
        ...

    def read(self, raw: Raw, choice: int) -> Record:
        """The record with one of its texts; images are opened by their headers, not decoded.

        Raises RecordError (or ValueError) where it is not of the published form, which costs this record alone.
        """
        ...


def every_record(reader: Reader, raw: Raw) -> list[Record]:
    """The record with each of its texts. Raises as `reading`."""
    with reading(reader, raw):
        return [reader.read(raw, choice) for choice in range(reader.choices(raw))]


@contextlib.contextmanager
def reading(reader: Reader, raw: Raw) -> Iterator[None]:
    """Makes a RecordError, "reader: KeyError: 'x'", of what a reader raises that is neither ValueError nor OSError.

    Such an error may be of the record or a fault of the reader, so the first of a kind is logged with its traceback,
    once in each process. A lack of memory is of no record and passes.
    """
    try:
        yield
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        if _is_first(type(reader), type(error)):
            LOG.warning(
                "data: %s raised this at %s, which is left out; further ones of its kind are counted alone",
                type(reader).__name__, raw.key, exc_info=error,
            )  # fmt: skip
        said = (str(error).splitlines() or [""])[0]
        raise RecordError(raw.key, f"reader: {type(error).__name__}{': ' if said else ''}{said}") from error


_raised: set[tuple[type, type]] = set()
_raised_lock = threading.Lock()


def _is_first(reader: type, error: type) -> bool:
    with _raised_lock:
        is_first = (reader, error) not in _raised
        _raised.add((reader, error))
        return is_first


class AllNeeded:
    """Base of readers that need each of their fields."""

    @property
    def optional(self) -> tuple[str, ...]:
        return ()


class OneChoice(AllNeeded):
    """Base of readers whose records have one text."""

    def choices(self, raw: Raw) -> int:
        return 1


def list_in(raw: Raw, name: str) -> list[Any]:
    """The list in a field. Raises RecordError where it is missing, or holds anything else."""
    if name not in raw.fields:
        there = ", ".join(map(repr, raw.fields)) or "nothing"
        raise RecordError(raw.key, f"no '{name}'; it has {there}")
    value = raw.fields[name]
    if not isinstance(value, list):
        raise RecordError(raw.key, f"'{name}' is {type(value).__name__}, wanted a list")
    return value


def texts_in(raw: Raw, name: str) -> list[str]:
    """The texts of a field that holds one or a list of them, without nulls and blank ones.

    Raises RecordError where it is missing, or holds anything else.
    """
    value = raw.fields.get(name)
    if value is None and name in raw.fields:
        return []
    texts = value if isinstance(value, list) else [raw.text(name)]
    strange = next((one for one in texts if not isinstance(one, str | None)), None)
    if strange is not None:
        raise RecordError(raw.key, f"'{name}' holds {type(strange).__name__}, wanted texts")
    return [one for one in texts if one is not None and one.strip()]


def texts_of(raw: Raw, name: str) -> list[str]:
    """As `texts_in`, of at least one text. Raises RecordError where there is none."""
    written = texts_in(raw, name)
    if not written:
        raise RecordError(raw.key, f"'{name}' is empty")
    return written


def text_of(raw: Raw, name: str) -> str:
    """As `texts_of`, of just one text. Raises RecordError where there are others."""
    text, *more = texts_of(raw, name)
    if more:
        raise RecordError(raw.key, f"'{name}' has {1 + len(more)} texts, wanted one")
    return text
