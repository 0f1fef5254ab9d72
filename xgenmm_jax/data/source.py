"""Where records come from: a source is frozen data, `open` gives its records by number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
import sys
from typing import Any, NoReturn, Protocol, get_args, runtime_checkable

import numpy as np

from xgenmm_jax.data.errors import RecordError, SourceError
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

    change: a frozen dataclass that takes a record and gives one; its `label` ends the name of the records. Where its
    `draws` is True it is given the draw's generator too, so what it draws follows from (seed, source, record, epoch).

    Of a source with an index the order of records and the held-out shards stay, and so does the identity by which a run
    knows its data again. What the change does to a record's size no index says, so each is read to plan its window.
    """

    source: Source
    change: Callable[..., Record]

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
    def __init__(self, records: Records, change: Callable[..., Record]):
        self.name = f"{records.name}/{getattr(change, 'label', type(change).__name__)}"
        self.left_out = getattr(records, "left_out", ())
        self._records, self._change = records, change
        for name in ("shards", "identity"):
            if hasattr(records, name):
                setattr(self, name, getattr(records, name))

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int, rng: np.random.Generator) -> Record:
        record = self._records.record(index, rng)
        return self._change(record, rng) if getattr(self._change, "draws", False) else self._change(record)


@dataclass(frozen=True)
class UnloadedSource:
    """A source of a run that is asked, not trained: its class, or one within it, stands in a file of the user's.

    settings: as config.json keeps it. The file is neither looked for nor executed.
    """

    settings: Mapping[str, Any] = field(hash=False)

    def open(self) -> NoReturn:
        """Raises SourceError: the records are what the file makes of them."""
        raise SourceError(
            f"data: the source {self.settings.get('class')!r} needs a file of yours, which is not executed to read a "
            "run; train with the experiment that names it (xgenmm train FILE --workdir RUN)."
        )

    def files(self) -> NoReturn:
        self.open()


def records_of(dataset: Any, name: str) -> Records:
    """The records of a data set whose items are records, as the `open` of a user's own source gives them.

    dataset: has a length and items by number: a grain `MapDataset`, a list, or any other sequence. Several threads read
    it at once. Its order is the first epoch's no more than any other's: the run draws
    by number. What is random in an item should follow from its number, as grain's `random_map` does; it is the same in
    each epoch. name: in metrics and messages.

    An item that is no record costs itself and is counted, such as the None of a `MapDataset` that filters.

    Raises ValueError where items cannot be had by number, or repeat for ever.
    """
    try:
        length = len(dataset)
    except TypeError as error:
        raise ValueError(
            f"data: '{name}' is a {type(dataset).__name__}, whose items cannot be had by number ({error}); give what "
            "has a length and items, as a grain MapDataset before to_iter_dataset()."
        ) from error
    if length >= sys.maxsize:
        raise ValueError(f"data: '{name}' repeats for ever; leave repeat() out, a run goes through epochs itself.")
    if not length:
        raise SourceError(f"data: '{name}' has no items; give it some.")
    return _RandomAccessRecords(dataset, length, name)


class _RandomAccessRecords:
    def __init__(self, dataset: Any, length: int, name: str):
        self.name, self._dataset, self._length = name, dataset, length

    def __len__(self) -> int:
        return self._length

    def record(self, index: int, rng: np.random.Generator) -> Record:
        item = self._dataset[index]
        if not isinstance(item, get_args(Record)):
            kinds = ", ".join(kind.__name__ for kind in get_args(Record))
            raise RecordError(f"{self.name}[{index}]", f"it is a {type(item).__name__}, wanted one of {kinds}")
        return item
