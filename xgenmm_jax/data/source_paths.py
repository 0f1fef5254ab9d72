"""Paths and patterns as users and data write them: `~`, folders with brackets in their names, paths below a folder."""

import glob
import os
from pathlib import Path


def at_home(path: str | Path) -> Path:
    """The path with a leading `~` or `~user` replaced by that home folder.

    Raises ValueError where no home folder is known and no file has the path as it is written.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        if Path(path).exists():
            return Path(path)
        raise ValueError(f"data: '{path}' begins with ~ and no home folder is known; write the path out.") from error


def literal_first(pattern: str | Path) -> str:
    """A pattern for `glob` in which parts that name an existing file or folder are escaped: literal names come first.

    "data/a[b]/*.json" becomes "data/a[[]b]/*.json" where data holds a folder "a[b]", else it stays the same.
    """
    pattern = str(at_home(pattern))
    resolved = os.sep if os.path.isabs(pattern) else ""
    for part in pattern.strip(os.sep).split(os.sep):
        as_written = os.path.join(resolved, glob.escape(part))
        is_there = glob.has_magic(part) and bool(glob.glob(as_written))
        resolved = as_written if is_there else os.path.join(resolved, part)
    return resolved


def inside(folder: str | Path, path: str) -> Path:
    """The full path of a file that data name relative to `folder`.

    Links inside the folder may lead out of it; whoever made them may do so. Raises ValueError where the path as it is
    written leads out of the folder.
    """
    top = os.path.abspath(folder)
    full = os.path.normpath(os.path.join(top, path))
    # An absolute path may have been written by way of links that lead to the folder, or without them.
    tops = (top, os.path.realpath(top)) if os.path.isabs(path) else (top,)
    if not any(Path(full).is_relative_to(one) for one in tops):
        raise ValueError(f"'{path}' lies outside of '{folder}'; move it inside and write its place there.")
    return Path(full)
