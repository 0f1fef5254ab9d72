"""What a maker is: frozen options that turn images into rows of one published schema."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from xgenmm_jax.curation.images import SourceImage
from xgenmm_jax.data.captions.cells import FractionBox

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Of the datasets library's images inside of tables."""
COMMON = (
    ("uid", pa.string()),
    ("url", pa.string()),
    ("key", pa.string()),
    ("license", pa.string()),
    ("__index_level_0__", pa.int64()),
)
"""Columns of each schema; the last is the image's number in its input shard."""

CONFIDENCE_BINS = 20


class LeftOutImage(NamedTuple):
    """Why an image gets no row. reason: one of few."""

    reason: str
    detail: str


RowOrReason = Mapping[str, Any] | LeftOutImage
MakeRows = Callable[[Sequence[SourceImage]], Sequence[RowOrReason]]
"""Of each image its row without the columns of COMMON and the image itself, or why it has none."""


class DrawnBox(NamedTuple):
    """A box of the page of samples. box: fractions of the image."""

    box: FractionBox
    label: str


@runtime_checkable
class Maker(Protocol):
    """A frozen dataclass with plain options; pickled to the workers.

    command: of `xgenmm curate`. batch: images that are made together.
    """

    @property
    def command(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def columns(self) -> tuple[tuple[str, pa.DataType], ...]:
        """Of its rows, beside those of COMMON."""
        ...

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Columns of the source that it reads beside an image, where they are there."""
        ...

    def refusal(self, size_px: tuple[int, int]) -> LeftOutImage | None:
        """Why an image of this width and height gets no row, whatever is in it; None where it may get one."""
        ...

    def check(self) -> None:
        """Raises ValueError where a library or a program is missing, or an option means nothing."""
        ...

    def described(self) -> dict[str, Any]:
        """Its options and the versions of what it runs, as JSON: rows of other ones do not mix with these."""
        ...

    def open(self) -> MakeRows:
        """Loads models; called once in a process."""
        ...

    def figures(self, row: Mapping[str, Any]) -> dict[str, Sequence[str]]:
        """What the card counts of a row: chart -> the bars that it adds one to each."""
        ...

    def drawn(self, row: Mapping[str, Any]) -> tuple[list[DrawnBox], list[str]]:
        """What the page of samples shows of a row: boxes on the image, and paragraphs beside it."""
        ...


def confidence_bin(confidence: float) -> str:
    """0.913 -> "0.90": the lower end of one of 20 bins from 0 to 1."""
    number = min(CONFIDENCE_BINS - 1, max(0, int(confidence * CONFIDENCE_BINS)))
    return f"{number / CONFIDENCE_BINS:.2f}"
