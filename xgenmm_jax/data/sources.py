"""Where records come from. A source config is data; `open` gives the source: a length, and any record by its number."""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass
import functools
import json
from pathlib import Path
import random
from typing import Any, Protocol, runtime_checkable

import numpy as np
import PIL.Image

from xgenmm_jax.data import pictures
from xgenmm_jax.data.picture_store import PictureStore
from xgenmm_jax.data.record_files import RecordReader
from xgenmm_jax.data.records import Caption, Conversation, Document, Picture, Preference, Record, Turn
from xgenmm_jax.data.splits import Split
from xgenmm_jax.data.synthetic import annotation, draw, families, word_pictures

ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
IMAGE = "<image>"


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
    granularity: annotation.Granularity = 0

    @property
    def gives_conversations(self) -> bool:
        """Whether a record is a conversation or a preference; told without reading data, as of the other sources."""
        return self.family in families.CONVERSATIONS

    def open(self, store: PictureStore | None = None) -> Source:
        """store: where drawn pictures are kept; None draws each one anew."""
        return _SyntheticSource(self, store)


class _SyntheticSource:
    def __init__(self, config: Synthetic, store: PictureStore | None):
        self.name = f"synthetic/{config.family}"
        self._config = config
        self._store = store

    def __len__(self) -> int:
        return self._config.length

    def record(self, index: int, rng: np.random.Generator) -> Record:
        config = self._config
        record = families.record(
            config.family,
            index,
            seed=config.seed,
            split=config.split,
            filler=config.filler,
            granularity=config.granularity,
        )
        return record if self._store is None else _kept(record, self._store, store_key(config), index)


def store_key(config: Synthetic) -> str:
    """The name of a source's shards in the picture store."""
    return f"{config.family}-{config.split}-{config.seed}"


def pictures_at(source: Source, index: int) -> tuple[Picture, ...]:
    """The pictures of record `index` of a source that needs no randomness."""
    return pictures_of(source.record(index, np.random.default_rng(0)))


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


def _kept(record: Record, store: PictureStore, key: str, index: int) -> Record:
    new = tuple(
        Picture(picture.size_px, functools.partial(_stored_or_drawn, store, key, index, number, picture))
        for number, picture in enumerate(pictures_of(record))
    )
    return with_pictures(record, new)


def _stored_or_drawn(store: PictureStore, key: str, index: int, number: int, picture: Picture) -> PIL.Image.Image:
    stored = store.read(key, index, number)
    return picture.load() if stored is None else stored


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

    def open(self, store: PictureStore | None = None) -> Source:
        return _SquashedSource(self.source.open(store), self.side_px)


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

    def open(self, store: PictureStore | None = None) -> Source:
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

    gives_conversations: whether they are conversations or preferences; the first record is held to it at opening. None,
    as in configs of before the field: the first record tells.
    """

    pattern: str
    gives_conversations: bool | None = None

    def open(self, store: PictureStore | None = None) -> Source:
        source = RecordReader(self.pattern)
        if self.gives_conversations is None or not len(source):
            return source
        first = source.record(0, np.random.default_rng(0))
        if isinstance(first, Conversation | Preference) != self.gives_conversations:
            raise ValueError(
                f"data: '{self.pattern}' begins with a {type(first).__name__} and its source has gives_conversations="
                f"{self.gives_conversations}; write RecordFiles({self.pattern!r}, {not self.gives_conversations})."
            )
        return source


@dataclass(frozen=True)
class LlavaJson:
    """LLaVA's fine-tuning form: a JSON list or JSON lines of {"id", "image": path | [paths], "conversations"}.

    folder: holds the pictures; paths may not leave it.
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

    def open(self, store: PictureStore | None = None) -> Source:
        return _LlavaSource(self)


class _LlavaSource:
    """Left out at opening: text-only conversations that contain `<image>`, and more than `max_images` pictures."""

    def __init__(self, config: LlavaJson):
        self.name = f"llava/{Path(config.path).stem}"
        self._path = Path(config.path)
        self._folder = Path(config.folder).resolve()
        rows = _read_json(self._path)
        kept = [row for row in rows if self._usable(row, config.max_images)]
        if not kept:
            raise ValueError(f"data: '{config.path}' has {len(rows)} entries and none is usable; wanted LLaVA's form.")
        self.left_out = len(rows) - len(kept)
        if config.samples is not None:
            dice = random.Random(42)
            draw = dice.choices if config.samples > len(kept) else dice.sample
            kept = draw(kept, k=config.samples)
        self._rows = kept

    def _usable(self, row: Any, max_images: int) -> bool:
        if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
            raise ValueError(f"data: '{self._path}' has an entry without a 'conversations' list: {str(row)[:80]}")
        images = _image_paths(row)
        if images:
            return len(images) <= max_images
        return not any(IMAGE in turn.get("value", "") for turn in row["conversations"])

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int, rng: np.random.Generator) -> Conversation:
        row = self._rows[index]
        id_ = f"{self.name}/{row.get('id', index)}"
        images = tuple(pictures.open_picture(self._inside(path, id_), official=True) for path in _image_paths(row))
        return Conversation(id_, images, self._turns(row, id_, len(images)))

    def _turns(self, row: dict, id_: str, images: int) -> tuple[Turn, ...]:
        turns = []
        for turn in row["conversations"]:
            if turn.get("from") not in ROLES or not isinstance(turn.get("value"), str):
                raise ValueError(f"data: {id_} has a turn {str(turn)[:80]}; wanted 'from' {list(ROLES)} and 'value'.")
            turns.append(Turn(ROLES[turn["from"]], turn["value"]))
        first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
        # The official repair: one picture, and not exactly one marker in the first question.
        if images == 1 and first is not None and turns[first].text.count(IMAGE) != 1:
            text = turns[first].text.replace(IMAGE, "").strip()
            turns[first] = Turn("user", f"{IMAGE}\n{text}")
        return tuple(turns)

    def _inside(self, path: str, id_: str) -> Path:
        full = (self._folder / path).resolve()
        if not full.is_relative_to(self._folder):
            raise ValueError(f"data: {id_} names the picture '{path}', outside of '{self._folder}'; move it inside.")
        return full


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
    return isinstance(source.open().record(0, np.random.default_rng(0)), Conversation | Preference)


def _image_paths(row: dict) -> list[str]:
    image = row.get("image", [])
    return [image] if isinstance(image, str) else list(image)


def _read_json(path: Path) -> list[Any]:
    if not path.is_file():
        raise ValueError(f"data: no file '{path}'; wanted a JSON list or JSON lines in LLaVA's form.")
    text = path.read_text()
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"data: '{path}' is not JSON ({error}); is it truncated?") from error
    if not isinstance(rows, list):
        raise ValueError(f"data: '{path}' holds a {type(rows).__name__}; wanted a list of conversations.")
    return rows
