"""Whether the files of a checkpoint are whole: a list of them with sizes and checksums, written before it appears.

Each host sums the files that it wrote, right behind writing them, and leaves the sums in the folder; host 0 makes the
list of them and reads what is left, the small files in which the hosts' are joined.

The list lies in the checkpoint's folder, so it comes and goes with it. A checkpoint without one (of `xgenmm convert`,
or of an earlier version) is held for whole where its metadata can be read.
"""

from collections.abc import Callable, Iterable
import contextlib
import itertools
import json
from pathlib import Path
import zlib

from xgenmm_jax import files

LIST_FILE = "files.json"
SUMS_FILE = "files.process_{}.json"
"""Of one host, until the list is made."""
OWN_FOLDERS = "*/ocdbt.process_{}"
"""What one host has written, of each item: orbax's name for it."""
UNFINISHED = ".orbax-checkpoint-tmp"
"""In the name of a folder that orbax has not finished."""
DAMAGED = ".damaged"

_BLOCK_BYTES = 16 * 2**20
_METADATA = "_METADATA"
# Orbax notes the time of commitment here after the list is written.
_CHANGES_LATER = "_CHECKPOINT_METADATA"


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that appeared, newest first."""
    if not folder.is_dir():
        return []
    return sorted((int(path.name) for path in folder.iterdir() if path.name.isdigit()), reverse=True)


def unfinished(folder: Path) -> list[Path]:
    """What a killed run was writing."""
    return sorted(folder.glob(f"*{UNFINISHED}*"))


def write_sums(folder: Path, process: int, is_urgent: Callable[[], bool] = lambda: False) -> None:
    """Sums the files that this host wrote into a checkpoint which has not appeared yet, for host 0's `write_list`.

    is_urgent: asked time and again; files get no checksums from its first yes on.
    """
    written = [path for part in sorted(folder.glob(OWN_FOLDERS.format(process))) for path in _files(part)]
    text = json.dumps(_entries(folder, written, is_urgent), indent=0)
    (folder / SUMS_FILE.format(process)).write_text(text, encoding="utf-8")


def write_list(folder: Path, is_urgent: Callable[[], bool] = lambda: False) -> None:
    """Lists every file of a checkpoint. Those that no host has summed are read once more for it: 1 GB/s.

    is_urgent: as for `write_sums`.
    """
    summed, paths = {}, _files(folder)
    for path in list(folder.glob(SUMS_FILE.format("*"))):
        with contextlib.suppress(ValueError):  # torn: read here
            summed |= _read_list(path)
        path.unlink()
    # Sums of a file that has changed its size since are not those of the file.
    names = {path: str(path.relative_to(folder)) for path in paths}
    known = {names[path] for path in paths if summed.get(names[path], {}).get("bytes") == path.stat().st_size}
    entries = _entries(folder, [path for path in paths if names[path] not in known], is_urgent)
    entries = {name: summed[name] if name in known else entries[name] for name in names.values()}
    (folder / LIST_FILE).write_text(json.dumps(entries, indent=0) + "\n", encoding="utf-8")


def damage(folder: Path, items: Iterable[str], share: tuple[int, int] | None = None) -> str | None:
    """What is wrong with a checkpoint, None where nothing is.

    items: folders that it must hold. share: (index, count) also reads every count-th file from index on and compares
    checksums, so that hosts share the reading; None: sizes alone, which takes no time.
    """
    for item in items:
        path = folder / item / _METADATA
        if not path.is_file() and item != "progress":
            return f"{item}/{_METADATA} is missing"
    try:
        entries = _read_list(folder / LIST_FILE)
    except FileNotFoundError:
        return None
    except ValueError as error:
        return str(error)
    for number, (name, entry) in enumerate(sorted(entries.items())):
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"{name} has {size} of {entry['bytes']} bytes"
        if share is None or number % share[1] != share[0] or entry["crc32"] is None:
            continue
        if _checksum(path) != entry["crc32"]:
            return f"{name} holds other bytes than were written"
    return None


def has_checksums(folder: Path) -> bool:
    """Whether every file of a checkpoint was listed with its checksum: then `damage` sees whatever befell it."""
    try:
        entries = _read_list(folder / LIST_FILE)
    except (OSError, ValueError):
        return False
    return all(entry["crc32"] is not None for entry in entries.values())


def put_aside(folder: Path) -> Path:
    """Renames a damaged checkpoint, and gives the new name: `9.damaged`, or `9.damaged.2` where that is taken."""
    names = (f"{folder.name}{DAMAGED}{f'.{count}' if count > 1 else ''}" for count in itertools.count(1))
    aside = next(path for path in map(folder.with_name, names) if not path.exists())
    folder.rename(aside)
    return aside


def _entries(folder: Path, paths: Iterable[Path], is_urgent: Callable[[], bool]) -> dict[str, dict[str, int | None]]:
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "crc32": _checksum(path, is_urgent)}
        for path in paths
    }


def _read_list(file: Path) -> dict[str, dict[str, int | None]]:
    """What `write_list` or `write_sums` wrote. Raises FileNotFoundError, and ValueError where it is not such a list."""
    try:
        entries = files.parse_json(files.read_text(file))
    except ValueError as error:
        raise ValueError(f"{LIST_FILE} is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{LIST_FILE} holds a {type(entries).__name__}, wanted an object with an entry for each file")
    for name, entry in entries.items():
        is_entry = isinstance(entry, dict) and entry.keys() >= {"bytes", "crc32"}
        if not is_entry or type(entry["bytes"]) is not int or type(entry["crc32"]) not in (int, type(None)):
            raise ValueError(f"{LIST_FILE} does not say bytes and crc32 of {name}")
    return entries


def _files(folder: Path) -> list[Path]:
    kept_out, sums = (LIST_FILE, _CHANGES_LATER), SUMS_FILE.partition("{}")[0]
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in kept_out and not path.name.startswith(sums)
    )


def _checksum(path: Path, is_urgent: Callable[[], bool] = lambda: False) -> int | None:
    """None where time has become short meanwhile."""
    value = 0
    with path.open("rb") as file:
        while not is_urgent():
            block = file.read(_BLOCK_BYTES)
            if not block:
                return value
            value = zlib.crc32(block, value)
    return None
