"""What a run writes beside its checkpoints to be looked at: it never keeps the run from going on."""

from collections.abc import Callable
import contextlib
import json
import logging
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.paths import Path
from xgenmm_jax.training.runs import checkpoint_files

LOG = logging.getLogger(__name__)


def read_rows(path: Path, is_row: Callable[[Any], bool]) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, oldest first. Lines that are none are left out: torn, foreign, no text."""
    return [value for value in files.whole_json_lines(path) if is_row(value)]


def keep_rows(path: Path, is_row: Callable[[Any], bool], last_step: int) -> list[dict[str, Any]]:
    """Leaves the rows up to a step in a file, and gives them; tells of lines that are no rows."""
    make_room(path, for_folder=False)
    rows, lines = read_rows(path, is_row), _count_lines(path)
    if lines > len(rows):
        LOG.warning("'%s': %d of %d lines are no rows and are left out", path, lines - len(rows), lines)
    remaining = drop_later(path, is_row, last_step)
    if not path.is_file():
        files.write_whole(path, "")
    return remaining


def drop_later(path: Path, is_row: Callable[[Any], bool], last_step: int) -> list[dict[str, Any]]:
    """Leaves the rows up to a step in each part of a file, and gives them; nothing where there is no file."""
    remaining: list[dict[str, Any]] = []
    # The last part first: a kill in between leaves nothing that is not left out again.
    for part in reversed(files.parts(path)):
        rows = [row for row in files.whole_json_lines(part, joined=False) if is_row(row) and row["step"] <= last_step]
        if rows or part == path:
            files.write_whole(part, "".join(json.dumps(row) + "\n" for row in rows))
        else:
            part.unlink(missing_ok=True)
        remaining = rows + remaining
    return remaining


def _count_lines(path: Path) -> int:
    lines = (line for part in files.parts(path) for line in files.read_lines(part, errors="replace"))
    return sum(bool(line.strip()) for line in lines)


def has_step(value: Any) -> bool:
    """Whether a value of JSON is an object that says which step it is about."""
    return isinstance(value, dict) and type(value.get("step")) is int


def make_room(path: Path, for_folder: bool) -> None:
    """Puts aside a file that lies where a folder is to be, or the reverse."""
    with contextlib.suppress(FileNotFoundError):  # another host was faster
        if path.exists() and path.is_dir() != for_folder:
            aside = checkpoint_files.put_aside(path)
            LOG.warning("'%s' is a %s; it is now '%s'", path, "file" if for_folder else "folder", aside.name)
