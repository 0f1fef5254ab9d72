"""Reading the authors' own files: JSON with its columns checked, and pictures in folders beside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import functools
from pathlib import Path
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.data.images import open_image
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.source_paths import inside

Entry = Mapping[str, Any]

_SUFFIXES = ("", ".jpg", ".png", ".jpeg")


def rows_of(values: Iterable[Any], path: Path) -> Iterator[Entry]:
    """The values as objects. Raises ValueError with the file and the number of one that is none."""
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise ValueError(
                f"benchmark: '{path}', entry {number} is {value!r:.60}; wanted an object with its columns."
            )
        yield value


def rows_in(path: Path, member: str = "") -> Iterator[Entry]:
    """The objects of the list in a JSON file, or of the list that is a member of its object.

    Raises: ValueError where there is no such list, or one of its values is no object.
    """
    value = files.read_json(path)
    if member:
        value = value.get(member) if isinstance(value, dict) else None
    if not isinstance(value, list):
        raise ValueError(f"benchmark: '{path}' has no list{f' of {member}' if member else ''}; copy it again.")
    yield from rows_of(value, path)


def texts(row: Entry, names: Sequence[str], path: Path) -> list[str]:
    """The row's values of these columns as texts; a number as it is written.

    Raises: ValueError where one is missing, with those found, or is neither text nor number.
    """
    missing = [name for name in names if name not in row]
    if missing:
        raise ValueError(
            f"benchmark: '{path}' has an entry without {', '.join(map(repr, missing))}; found: {', '.join(row)}."
        )
    for name in names:
        if not isinstance(row[name], str | int | float):
            raise ValueError(f"benchmark: '{path}' has {name} {row[name]!r:.60}; wanted a text.")
    return [str(row[name]) for name in names]


def text_list(row: Entry, name: str, path: Path) -> list[str]:
    """The row's list of texts; none where it is null. Raises ValueError where it is no list of texts and numbers."""
    value = row.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
        raise ValueError(f"benchmark: '{path}' has {name} {value!r:.60}; wanted a list of texts.")
    return [str(one) for one in value]


def image_below(folder: Path, name: str) -> tuple[tuple[LazyImage, ...], str]:
    """The picture of a name below a folder, with the suffix that the file has; none, and why, where it cannot be read.

    A name may hold folders, also with backslashes, but does not lead out of the folder.
    """
    name = name.replace("\\", "/")
    try:
        paths = [inside(folder, name + suffix) for suffix in _SUFFIXES]
        path = next((path for path in paths if path.is_file()), paths[0])
        changed = path.stat().st_mtime_ns if path.is_file() else None
        return (_opened(path, changed),), ""
    except ValueError as error:
        return (), str(error)


@functools.lru_cache(maxsize=1 << 16)
def _opened(path: Path, changed: int | None) -> LazyImage:
    """One object for a file, however many questions are about it; its pixels are not kept. changed: when it was."""
    return open_image(path, official=True)
