"""LLaVA's fine-tuning form: `Llava` reads one entry of a storage, `LlavaJson` a file that is held in memory.

Not used are entries that are not of the form, conversations that are out of order, those with more than `max_images`
images, and `<image>` without an image (`llava_entries.py`). `LlavaJson` checks entries once, at opening, and counts
them by reason; what an entry names (an image that is missing or damaged) is found out when it is read.
"""

from dataclasses import dataclass
from pathlib import Path
import random
from typing import Any, ClassVar

import numpy as np

from xgenmm_jax.data import source_paths
from xgenmm_jax.data.errors import RecordError, Skip, SourceError
from xgenmm_jax.data.images import open_image
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.readers.images import image_in
from xgenmm_jax.data.readers.llava_entries import images_in, is_path_or_image, turns, why_not
from xgenmm_jax.data.records import Conversation, LazyImage
from xgenmm_jax.data.rows.quarantine import in_words
from xgenmm_jax.data.source import Records
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.files import json_lines, read_json

JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Llava(OneChoice):
    """A `Conversation` of one entry, {"id", "image": path | [paths], "conversations": [{"from", "value"}]}.

    In a table an image may stand in its column in place of its path, as bytes or as the datasets library's struct
    {"bytes", "path"}.

    max_images: conversations with more images are not used, as in the official code; None uses all.
    """

    max_images: int | None = 4

    label: ClassVar[str] = "llava"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("conversations",)

    @property
    def optional(self) -> tuple[str, ...]:
        return ("id", "image", "images")

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError for what `LlavaJson` leaves out, with its reason, and where an image cannot be opened."""
        row = dict(raw.fields)
        if why := why_not(row, self.max_images, is_path_or_image):
            raise RecordError(raw.key, f"{why[0]} ({why[1]})")
        try:
            images = tuple(_opened(raw, image) for image in images_in(row, is_path_or_image))
        except (ValueError, OSError) as error:
            raise RecordError(raw.key, error) from error
        return Conversation(raw.key, images, turns(row, len(images)))


def _opened(raw: Raw, image: Any) -> LazyImage:
    return raw.image(image) if isinstance(image, str) else image_in(raw, image)


@dataclass(frozen=True)
class LlavaJson:
    """LLaVA's fine-tuning form: a JSON list or JSON lines of {"id", "image": path | [paths], "conversations"}.

    Entries of another form are left out and counted.

    folder: holds the images; paths may not leave it as they are written, links in it are followed.
    samples: as in the official mixture files: up to the file's length a sample of it, above it draws with
        replacement, by `random.Random(42)`. None takes all.
    max_images: conversations with more images are left out, as in the official code; None leaves none out.
    """

    path: str
    folder: str
    samples: int | None = None
    max_images: int | None = 4

    PATH_FIELDS = ("path", "folder")
    """Fields that say where files lie."""

    def open(self) -> Records:
        return LlavaRecords(self.path, self.folder, self.samples, self.max_images)

    def files(self) -> list[Path]:
        """Without the images."""
        return [source_paths.at_home(self.path)]


class LlavaRecords:
    """Conversations of one file.

    left_out: a Skip for each reason why entries are left out, with their number and the first one's name.

    Raises SourceError where no entry is usable, with the reasons.
    """

    def __init__(self, path: str, folder: str, samples: int | None, max_images: int | None):
        self.name = f"llava/{Path(path).stem}"
        self._folder = source_paths.at_home(folder)
        self._rows = _read(source_paths.at_home(path))
        used: list[int] = []
        left_out: dict[str, Skip] = {}
        for number, row in enumerate(self._rows):
            why = why_not(row, max_images)
            if why is None:
                used.append(number)
                continue
            first = left_out.get(why[0]) or Skip(self.name, self._id(number), *why, count=0, at_opening=True)
            left_out[why[0]] = first._replace(count=first.count + 1)
        self.left_out = tuple(left_out.values())
        if not used:
            reasons = in_words(self.left_out) or "it is empty"
            raise SourceError(
                f"data: '{path}' has {len(self._rows)} entries and none is usable ({reasons}); wanted LLaVA's form."
            )
        if samples is not None:
            rng = random.Random(42)
            draw = rng.choices if samples > len(used) else rng.sample
            used = draw(used, k=samples)
        self._used = used

    def __len__(self) -> int:
        return len(self._used)

    def record(self, index: int, rng: np.random.Generator) -> Conversation:
        """Raises RecordError where an image lies outside of the folder, is missing or is none."""
        row, id_ = self._rows[self._used[index]], self._id(self._used[index])
        try:
            files = [source_paths.inside(self._folder, path) for path in images_in(row)]
            images = tuple(open_image(file, official=True) for file in files)
        except (ValueError, OSError) as error:
            raise RecordError(id_, error) from error
        return Conversation(id_, images, turns(row, len(images)))

    def _id(self, number: int) -> str:
        row = self._rows[number]
        id_ = row.get("id") if isinstance(row, dict) else None
        is_name = isinstance(id_, str | int | float) and not isinstance(id_, bool) and id_ == id_
        return f"{self.name}/{id_ if is_name else number}"


def _read(path: Path) -> list[Any]:
    if not path.is_file():
        raise SourceError(f"data: no file '{path}'; wanted a JSON list or JSON lines in LLaVA's form.")
    try:
        rows = [row for _, row in json_lines(path)] if path.suffix.lower() in JSON_LINES else read_json(path)
    except (ValueError, OSError) as error:
        raise SourceError(f"data: {error}") from error
    if not isinstance(rows, list):
        raise SourceError(f"data: '{path}' holds a {type(rows).__name__}; wanted a list of conversations.")
    return rows
