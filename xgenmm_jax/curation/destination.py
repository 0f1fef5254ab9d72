"""The folder that a command writes: what it holds, and that nothing else is mixed into it.

    DST/data/000000.parquet   the rows of input shard 0, and so on
    DST/README.md, card/      the data card and its charts
    DST/samples.html          a page of samples
    DST/left_out.jsonl        each image without a row, and why
    DST/.curation/            what was made from what, a note for each shard that is done
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import json
from pathlib import Path
from typing import Any, NamedTuple

from xgenmm_jax import files, user_files
from xgenmm_jax.curation.duplicates import HASHES, hashes_file
from xgenmm_jax.curation.makers import Maker
from xgenmm_jax.curation.shards import (
    DATA,
    DUPLICATES,
    NOTES,
    FailedShard,
    Options,
    ShardNote,
    failed_file,
    note_file,
)
from xgenmm_jax.data.index.source_index import SourceIndex
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.files import is_remote

VERSION = 2
"""Of the output; rows of another one are not added to."""
FROM_FILE, LOCK_FILE, LEFT_OUT_FILE = "from.json", "lock", "left_out.jsonl"


class Curated(NamedTuple):
    """What a folder holds now. new: shards that were made now; notes in the order of the shards that are done."""

    shards: int
    new: int
    notes: tuple[ShardNote, ...]
    failed: tuple[FailedShard, ...]

    @property
    def rows(self) -> int:
        return sum(note.rows for note in self.notes)

    def left_out(self) -> dict[str, tuple[int, str]]:
        """By reason how many, and the first of them."""
        reasons: dict[str, tuple[int, str]] = {}
        for note in self.notes:
            for image, reason, detail in note.left_out:
                count, first = reasons.get(reason, (0, f"{image}: {detail}"))
                reasons[reason] = count + 1, first
        return reasons

    def figures(self) -> dict[str, dict[str, int]]:
        """Charts of all shards together."""
        charts: dict[str, dict[str, int]] = {}
        for note in self.notes:
            for chart, bars in note.figures.items():
                of_all = charts.setdefault(chart, {})
                for bar, count in bars.items():
                    of_all[bar] = of_all.get(bar, 0) + count
        return charts


@contextlib.contextmanager
def opened(source: ShardedSource, maker: Maker, options: Options, folder: Path) -> Iterator[None]:
    """A folder in which this source is made by this maker, new or gone on with; no other process writes to it then.

    A shard of the source that is not done may have become another file, mended or put there whole at last.

    Raises ValueError where the folder holds anything else, or the source, or another process writes to it.
    """
    index = source.source_index()
    inside = folder.resolve()
    shards = [Path(path).resolve() for path in index.paths if not is_remote(path)]
    if any(inside in (path, *path.parents) for path in shards):
        raise ValueError(f"curate: '{folder}' holds the source; give another folder.")
    described = _described(index, maker, options)
    from_file = folder / NOTES / FROM_FILE
    was, changed = None, []
    if from_file.is_file():
        was = files.read_json(from_file, "delete the folder and start again")
        changed = _check_same(was, described, folder)
    elif folder.is_dir() and (strays := sorted({path.name for path in folder.iterdir()} - {NOTES})):
        raise ValueError(f"curate: '{folder}' holds '{strays[0]}', which no `xgenmm curate` wrote; give a new folder.")
    for part in (DATA, NOTES, f"{NOTES}/{HASHES}", f"{NOTES}/{DUPLICATES}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    with alone(folder):
        for number in changed:
            hashes_file(folder, number).unlink(missing_ok=True)
        if was != described:
            files.write_whole(from_file, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
        yield
        delete_leftovers(folder)


def _described(index: SourceIndex, maker: Maker, options: Options) -> dict[str, Any]:
    """Everything on which the rows depend, as JSON."""
    source = index.as_it_is()
    value = {
        "version": VERSION,
        "command": maker.command,
        "maker": maker.described(),
        "files": [[Path(file.path).name, file.sha256] for file in user_files.loaded_for((maker,))],
        "options": dataclasses.asdict(options),
        "storage": source.storage,
        "reader": source.reader,
        "shards": [[shard.name, shard.bytes] for shard in source.shards],
    }
    return json.loads(json.dumps(value))


def _check_same(was: Any, now: dict[str, Any], folder: Path) -> list[int]:
    """The shards that have other bytes than they had and are not done yet.

    Raises ValueError where the folder was made of something else, with the first difference.
    """
    was = was if isinstance(was, dict) else {}
    changed = _changed_shards(was.get("shards"), now["shards"], folder)
    for name, value in now.items():
        if was.get(name) == value or name == "shards" and changed is not None:
            continue
        before, after = was.get(name), value
        if isinstance(before, dict) and isinstance(value, dict):
            key = next(key for key in (*value, *before) if before.get(key) != value.get(key))
            name, before, after = f"{name} {key}", before.get(key), value.get(key)
        said = "other shards" if name == "shards" else f"{name} was {_brief(before)} and is {_brief(after)}"
        raise ValueError(f"curate: '{folder}' was made from something else: {said}; give a new folder.")
    return changed or []


def _changed_shards(before: Any, after: list[list[Any]], folder: Path) -> list[int] | None:
    """Numbers of shards with other bytes; None where there are other shards. before: as read from a file.

    Raises ValueError where one of them is done.
    """
    pairs = before if isinstance(before, list) else []
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        return None
    if [name for name, _ in pairs] != [name for name, _ in after]:
        return None
    changed = [number for number, pair in enumerate(after) if pair != pairs[number]]
    for number in changed:
        if noted(folder, number) is not None:
            name, size = after[number]
            raise ValueError(
                f"curate: '{folder}' was made from something else: '{name}' had {pairs[number][1]:,} bytes and has "
                f"{size:,}; give a new folder."
            )
    return changed


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process writes to the folder inside. Raises ValueError where one does."""
    with (folder / NOTES / LOCK_FILE).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"curate: another process writes to '{folder}'; wait for it, or end it.") from error
        except OSError:
            pass  # the file system has no locks
        yield


def delete_leftovers(folder: Path) -> None:
    """Files half-written by processes that were killed."""
    for part in (folder, folder / DATA, folder / NOTES, folder / NOTES / HASHES, folder / NOTES / DUPLICATES):
        files.delete_unfinished(part)


def undone(folder: Path, shards: int) -> list[int]:
    """The shards that are to be made; those that failed before are tried again."""
    return [number for number in range(shards) if noted(folder, number) is None]


def unhashed(folder: Path, shards: int) -> list[int]:
    """The shards whose images are to be hashed; one that could not be read before is tried again."""
    return [number for number in range(shards) if not hashes_file(folder, number).is_file()]


def noted(folder: Path, number: int) -> ShardNote | None:
    """What became of a shard, where it is done and its file is there."""
    try:
        value = files.read_json(note_file(folder, number))
        left_out = tuple((image, reason, detail) for image, reason, detail in value.pop("left_out"))
        note = ShardNote(left_out=left_out, **value)
        is_whole = (folder / note.file).stat().st_size == note.bytes
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if is_whole else None


def failures(folder: Path, numbers: list[int], names: list[str]) -> list[FailedShard]:
    """Of these shards, those that are not done, each with what it failed with."""
    failed = []
    for number in numbers:
        if noted(folder, number) is not None:
            continue
        path = failed_file(folder, number)
        if path.is_file():
            failed.append(FailedShard(**files.read_json(path)))
        else:
            failed.append(FailedShard(names[number], "its worker ended without a word; run the command again"))
    return failed


def write_left_out(folder: Path, notes: tuple[ShardNote, ...]) -> None:
    """Each image without a row, one a line."""
    lines = [
        json.dumps({"image": image, "shard": note.shard, "reason": reason, "detail": detail}, ensure_ascii=False)
        for note in notes
        for image, reason, detail in note.left_out
    ]
    files.write_whole(folder / LEFT_OUT_FILE, "".join(f"{line}\n" for line in lines))
