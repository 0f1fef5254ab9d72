"""Paths and patterns of data as users write them: `~`, folders named "a[b]", links, and what may not leave a folder."""

import glob
import os
from pathlib import Path


def at_home(path: str | Path) -> Path:
    """The path with `~` or `~user` at its beginning replaced by that home folder.

    Raises ValueError where no home folder is known, unless something is named so.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        if Path(path).exists():
            return Path(path)
        raise ValueError(f"data: '{path}' begins with ~ and no home folder is known; write the path out.") from error


def literal_first(pattern: str | Path) -> str:
    """A pattern for `glob` in which every part that is there as it is written is read so.

    "data/a[b]/*.json" is "data/a[[]b]/*.json" where a folder "a[b]" lies in data, and stays as it is where none does.
    """
    pattern = str(at_home(pattern))
    place = os.sep if os.path.isabs(pattern) else ""
    for part in pattern.strip(os.sep).split(os.sep):
        as_written = os.path.join(place, glob.escape(part))
        is_there = glob.has_magic(part) and bool(glob.glob(as_written))
        place = as_written if is_there else os.path.join(place, part)
    return place


def inside(folder: str | Path, path: str) -> Path:
    """The place of a path that data name, relative to a folder of theirs. Links are followed: whoever made them may.

    Raises ValueError where the path as it is written leads out of the folder.
    """
    top = os.path.abspath(folder)
    full = os.path.normpath(os.path.join(top, path))
    # An absolute path may have been written by way of links that lead to the folder, or without them.
    tops = (top, os.path.realpath(top)) if os.path.isabs(path) else (top,)
    if not any(Path(full).is_relative_to(one) for one in tops):
        raise ValueError(f"'{path}' lies outside of '{folder}'; move it inside and write its place there.")
    return Path(full)
