"""Where records come from: a source is frozen data, `open` gives its records by number."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from xgenmm_jax.data.records import Record


@runtime_checkable
class Records(Protocol):
    """The records of an opened source, any of them at any time, from any thread.

    One that leaves entries out when it is opened says so in `left_out`, a tuple of `errors.Skip`.
    """

    name: str

    def __len__(self) -> int: ...

    def record(self, index: int, rng: np.random.Generator) -> Record:
        """Record `index`; images are not decoded. rng: all randomness of this draw."""
        ...


@runtime_checkable
class Source(Protocol):
    """A frozen dataclass: storage, reader and their options, as the run's config keeps them.

    The readers of `data/readers/` are sources, and so is any class with these methods.
    """

    def open(self) -> Records:
        """Raises ValueError where the data are not there or not what they should be."""
        ...

    def files(self) -> list[Path]:
        """The files that hold the records, in the order of reading; none of what is computed."""
        ...


@dataclass(frozen=True)
class Mapped:
    """The records of another source, each changed: Mapped(Synthetic("questions"), Squash(64)).

    change: a frozen dataclass that takes a record and gives one; its `label` ends the name of the records.
    """

    source: Source
    change: Callable[[Record], Record]

    def open(self) -> Records:
        return _MappedRecords(self.source.open(), self.change)

    def files(self) -> list[Path]:
        return self.source.files()


def without_changes(source: Source) -> Source:
    """The source under every `Mapped`."""
    while isinstance(source, Mapped):
        source = source.source
    return source


class _MappedRecords:
    def __init__(self, records: Records, change: Callable[[Record], Record]):
        self.name = f"{records.name}/{getattr(change, 'label', type(change).__name__)}"
        self.left_out = getattr(records, "left_out", ())
        self._records, self._change = records, change

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int, rng: np.random.Generator) -> Record:
        return self._change(self._records.record(index, rng))
