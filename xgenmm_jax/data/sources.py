"""Where records come from. A source config is data; `open` gives the source: a length, and any record by its number."""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass
import functools
from typing import Protocol, runtime_checkable

import numpy as np
import PIL.Image

from xgenmm_jax.data.captions import ocr
from xgenmm_jax.data.llava import LlavaSource
from xgenmm_jax.data.record_files import RecordReader
from xgenmm_jax.data.records import Caption, Conversation, Document, Picture, Preference, Record
from xgenmm_jax.data.skips import RecordError, SourceError
from xgenmm_jax.data.splits import Split
from xgenmm_jax.data.synthetic import draw, families, word_pictures


@runtime_checkable
class Source(Protocol):
    """Records by number, any of them at any time, from any thread."""

    name: str

    def __len__(self) -> int: ...

    def record(self, index: int, rng: np.random.Generator) -> Record:
        """Record `index`; pictures are not decoded. rng: all randomness of this draw."""
        ...


@dataclass(frozen=True)
class Synthetic:
    """Records of one family of the embedded data, described when asked for.

    length: how many; one epoch is a permutation of them. filler, granularity: how OCR captions are worded.
    """

    family: families.Family
    length: int = 100_000
    seed: int = 0
    split: Split = "train"
    filler: bool = False
    granularity: ocr.Granularity = 0

    @property
    def gives_conversations(self) -> bool:
        """Whether a record is a conversation or a preference; told without reading data, as of the other sources."""
        return self.family in families.CONVERSATIONS

    def open(self) -> Source:
        return _SyntheticSource(self)


class _SyntheticSource:
    def __init__(self, config: Synthetic):
        self.name = f"synthetic/{config.family}"
        self._config = config

    def __len__(self) -> int:
        return self._config.length

    def record(self, index: int, rng: np.random.Generator) -> Record:
        config = self._config
        return families.record(
            config.family,
            index,
            seed=config.seed,
            split=config.split,
            filler=config.filler,
            granularity=config.granularity,
        )


def pictures_of(record: Record) -> tuple[Picture, ...]:
    """A record's pictures, in order."""
    if isinstance(record, Caption):
        return (record.picture,)
    if isinstance(record, Document):
        return tuple(part for part in record.parts if isinstance(part, Picture))
    return record.pictures


def with_pictures(record: Record, new: tuple[Picture, ...]) -> Record:
    """The record with its pictures replaced, in order."""
    if isinstance(record, Caption):
        return dataclasses.replace(record, picture=new[0])
    if isinstance(record, Document):
        rest = iter(new)
        parts = tuple(next(rest) if isinstance(part, Picture) else part for part in record.parts)
        return dataclasses.replace(record, parts=parts)
    return dataclasses.replace(record, pictures=new)


@dataclass(frozen=True)
class Squashed:
    """Another source with its pictures squashed to `side_px` square, as the global view of any-res is.

    So that a model which sees grids of crops also sees the same pictures in a single view.
    """

    source: Synthetic
    side_px: int

    @property
    def gives_conversations(self) -> bool:
        return self.source.gives_conversations

    def open(self) -> Source:
        return _SquashedSource(self.source.open(), self.side_px)


class _SquashedSource:
    def __init__(self, source: Source, side_px: int):
        self.name = f"{source.name}/{side_px}px"
        self._source, self._side_px = source, side_px

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int, rng: np.random.Generator) -> Record:
        record = self._source.record(index, rng)
        side_px = self._side_px
        new = (Picture((side_px, side_px), functools.partial(_squash, p, side_px)) for p in pictures_of(record))
        return with_pictures(record, tuple(new))


def _squash(picture: Picture, side_px: int) -> PIL.Image.Image:
    return picture.load().resize((side_px, side_px), PIL.Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class InWords:
    """Another source with its pictures in words (`synthetic.word_pictures`): what a language model begins with.

    Raises ValueError at a record whose pictures are not 64 x 64.
    """

    source: Synthetic

    @property
    def gives_conversations(self) -> bool:
        return self.source.gives_conversations

    def open(self) -> Source:
        return _InWordsSource(self.source.open())


class _InWordsSource:
    def __init__(self, source: Source):
        self.name = f"{source.name}/words"
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int, rng: np.random.Generator) -> Record:
        record = self._source.record(index, rng)
        return with_pictures(record, tuple(word_pictures.in_words(draw.scene_of(p)) for p in pictures_of(record)))


@dataclass(frozen=True)
class RecordFiles:
    """Records in our own container (`record_files.py`): array_record files that match a pattern, in sorted order.

    pattern: `~` is the home folder; a part of it that is there as written, a folder "a[b]", is read so.
    gives_conversations: whether they are conversations or preferences; the first record is held to it at opening. None,
    as in configs of before the field: the first record tells.
    """

    pattern: str
    gives_conversations: bool | None = None

    def open(self) -> Source:
        source = RecordReader(self.pattern)
        if self.gives_conversations is None:
            return source
        first = _first_record(source)
        if isinstance(first, Conversation | Preference) != self.gives_conversations:
            raise ValueError(
                f"data: '{self.pattern}' begins with a {type(first).__name__} and its source has gives_conversations="
                f"{self.gives_conversations}; write RecordFiles({self.pattern!r}, {not self.gives_conversations})."
            )
        return source


@dataclass(frozen=True)
class LlavaJson:
    """LLaVA's fine-tuning form: a JSON list or JSON lines of {"id", "image": path | [paths], "conversations"}.

    Entries of another form are left out and counted (`llava.py`).

    folder: holds the pictures; paths may not leave it as they are written, links in it are followed.
    samples: as in the official mixture files: up to the file's length a sample of it, above it draws with
        replacement, by `random.Random(42)`. None takes all.
    max_images: conversations with more pictures are left out, as in the official code.
    """

    path: str
    folder: str
    samples: int | None = None
    max_images: int = 4

    @property
    def gives_conversations(self) -> bool:
        return True

    def open(self) -> Source:
        return LlavaSource(self.path, self.folder, self.samples, self.max_images)


SourceConfig = Synthetic | Squashed | InWords | RecordFiles | LlavaJson


def share_of_conversations(mixture: Sequence[tuple[SourceConfig, float]]) -> float:
    """The share of a mixture's weight that lies on conversations and preferences.

    No data is read where the sources say so themselves; of RecordFiles that do not, the first record is.
    """
    of_turns = sum(weight for source, weight in mixture if _gives_conversations(source))
    return of_turns / sum(weight for _, weight in mixture)


def _gives_conversations(source: SourceConfig) -> bool:
    if source.gives_conversations is not None:
        return source.gives_conversations
    return isinstance(_first_record(source.open()), Conversation | Preference)


def _first_record(source: Source) -> Record:
    """The first record that can be read. Raises SourceError where none of the first 1,000 can."""
    tried = min(len(source), 1000)
    for index in range(tried):
        try:
            return source.record(index, np.random.default_rng(0))
        except RecordError as error:
            cause = error
    raise SourceError(f"data: of '{source.name}' none of the first {tried} records can be read ({cause}).")
