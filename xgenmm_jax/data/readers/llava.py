"""LLaVA's fine-tuning form, as `LlavaJson` opens it: entries are checked once, by row, and counted by reason.

Left out at opening are entries that are not of the form, conversations that are out of order, those with more than
`max_images` images, and `<image>` without an image, as in the official code
(docs/reference/training.md#fine-tuning-data). What an entry names (an image that is missing or damaged) is found out
when it is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
import random
from typing import Any

import numpy as np

from xgenmm_jax.data import source_paths
from xgenmm_jax.data.errors import RecordError, Skip, SourceError
from xgenmm_jax.data.images import open_image
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.rows.quarantine import in_words
from xgenmm_jax.data.source import Records
from xgenmm_jax.data.text.chat import check_turns
from xgenmm_jax.files import json_lines, read_json

ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
IMAGE = "<image>"
JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class LlavaJson:
    """LLaVA's fine-tuning form: a JSON list or JSON lines of {"id", "image": path | [paths], "conversations"}.

    Entries of another form are left out and counted.

    folder: holds the images; paths may not leave it as they are written, links in it are followed.
    samples: as in the official mixture files: up to the file's length a sample of it, above it draws with
        replacement, by `random.Random(42)`. None takes all.
    max_images: conversations with more images are left out, as in the official code.
    """

    path: str
    folder: str
    samples: int | None = None
    max_images: int = 4

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

    def __init__(self, path: str, folder: str, samples: int | None, max_images: int):
        self.name = f"llava/{Path(path).stem}"
        self._folder = source_paths.at_home(folder)
        self._rows = _read(source_paths.at_home(path))
        used: list[int] = []
        left_out: dict[str, Skip] = {}
        for number, row in enumerate(self._rows):
            why = _why_not(row, max_images)
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
            files = [source_paths.inside(self._folder, path) for path in _image_paths(row)]
            images = tuple(open_image(file, official=True) for file in files)
        except (ValueError, OSError) as error:
            raise RecordError(id_, error) from error
        return Conversation(id_, images, _turns(row, len(images)))

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


def _why_not(row: Any, max_images: int) -> tuple[str, str] | None:
    """Why an entry is left out: the reason, by which entries are counted, and what it has. None where it is used."""
    if not isinstance(row, dict):
        return "no object", _brief(row)
    turns = row.get("conversations")
    if not isinstance(turns, list):
        return "without a 'conversations' list", _brief(row)
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            return "a turn whose 'value' is no text", _brief(turn)
        if not isinstance(turn.get("from"), str) or turn["from"] not in ROLES:
            return f"a turn that is not 'from' {', '.join(ROLES)}", _brief(turn)
    try:
        images = _image_paths(row)
    except ValueError as error:
        return "'image' is neither a path nor a list of paths", str(error)
    try:
        check_turns("entry", _in_order(turns), last="assistant")
    except ValueError as error:
        return "turns out of order", str(error)
    if len(images) > max_images:
        return f"more than {max_images} images", f"{len(images)} images"
    if not images and any(IMAGE in turn["value"] for turn in turns):
        return f"{IMAGE} without an image", "no 'image'"
    return None


def _image_paths(row: dict[str, Any]) -> list[str]:
    """The paths in "image" or "images": none where they are missing, null, NaN as pandas writes it, or empty.

    Raises ValueError where they are anything else than paths.
    """
    named = []
    for key in ("image", "images"):
        value = row.get(key)
        paths = value if isinstance(value, list) else [value]
        if not all(_is_nothing(path) for path in paths):
            named.append(paths)
    if not named:
        return []
    if len(named) == 2 and named[0] != named[1]:
        raise ValueError(f"'image' {_brief(named[0])} and 'images' {_brief(named[1])}")
    for path in named[0]:
        if _is_nothing(path) or not isinstance(path, str):
            raise ValueError(_brief(path))
    return named[0]


def _is_nothing(path: Any) -> bool:
    is_empty = isinstance(path, str) and not path.strip()
    return path is None or is_empty or (isinstance(path, float) and math.isnan(path))


def _in_order(turns: Sequence[dict[str, str]]) -> tuple[Turn, ...]:
    """The turns, without an answer that stands before the first question: LLaVA's own code skips it."""
    in_order = [Turn(ROLES[turn["from"]], turn["value"]) for turn in turns]
    first = 1 if in_order and in_order[0].role == "system" else 0
    if len(in_order) > first and in_order[first].role == "assistant":
        del in_order[first]
    return tuple(in_order)


def _turns(row: dict[str, Any], images: int) -> tuple[Turn, ...]:
    turns = list(_in_order(row["conversations"]))
    first = next(i for i, turn in enumerate(turns) if turn.role == "user")
    # The official repair: one image, and not exactly one marker in the first question.
    if images == 1 and turns[first].text.count(IMAGE) != 1:
        text = turns[first].text.replace(IMAGE, "").strip()
        turns[first] = Turn("user", f"{IMAGE}\n{text}")
    return tuple(turns)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
