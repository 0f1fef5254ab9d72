"""Whether the files of a checkpoint are whole: a list of them with sizes and checksums, written before it appears.

Each host sums the files that it wrote, right behind writing them, and leaves the sums in the folder; host 0 makes the
list of them and reads what is left, the small files in which the hosts' are joined.

The list lies in the checkpoint's folder, so it comes and goes with it. A checkpoint without one (of `xgenmm convert`,
or of an earlier version) is held for whole where its metadata can be read.

In a bucket, where no folder is renamed, orbax writes a checkpoint at its place and COMMITTED into it as the last file:
without it, it is none yet.
"""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import itertools
import json
import zlib

from xgenmm_jax import files
from xgenmm_jax.paths import Path, is_in_bucket

LIST_FILE = "files.json"
SUMS_FILE = "files.process_{}.json"
"""Of one host, until the list is made."""
OWN_FOLDER = "ocdbt.process_{}"
"""What one host has written, in the folder of each item: orbax's name for it."""
UNFINISHED = ".orbax-checkpoint-tmp"
"""In the name of a folder that orbax has not finished."""
DAMAGED = ".damaged"
COMMITTED = "commit_success.txt"
"""Orbax's, in a checkpoint that is written to its end. Asked for in a bucket alone: older ones on disks lack it."""

_METADATA = "_METADATA"
# Orbax notes the time of commitment here after the list is written.
_CHANGES_LATER = "_CHECKPOINT_METADATA"


def check_place(path: Path, what: str) -> None:
    """Raises ValueError where no checkpoint can be: orbax knows file systems and gs://."""
    if str(path).startswith("s3:"):
        raise ValueError(
            f"{what}: got '{path}', wanted gs://BUCKET/... or a path of a file system: the library of checkpoints "
            "(orbax) knows no s3://; mount the bucket."
        )


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that appeared, newest first."""
    if not folder.is_dir():
        return []
    numbers = sorted((int(path.name) for path in folder.iterdir() if path.name.isdigit()), reverse=True)
    return [number for number in numbers if has_appeared(folder / str(number))]


def has_appeared(folder: Path) -> bool:
    """Whether a folder with the name of a checkpoint, or of a reference, was written to its end.

    One that was copied to a bucket from a disk has our list; one of `xgenmm convert` has nothing of orbax's own, which
    orbax begins with.
    """
    if not is_in_bucket(folder):
        return True
    if (folder / COMMITTED).is_file() or (folder / LIST_FILE).is_file():
        return True
    return (folder / "params" / _METADATA).is_file() and not (folder / _CHANGES_LATER).is_file()


def unfinished(folder: Path) -> list[Path]:
    """What a killed run was writing."""
    if not is_in_bucket(folder):
        return sorted(folder.glob(f"*{UNFINISHED}*"))
    numbered = (path for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else ()
    return sorted(path for path in numbered if not has_appeared(path))


def being_written(folder: Path) -> list[Path]:
    """Where a checkpoint is being written that will have this name, or was when a run was killed."""
    if not is_in_bucket(folder):
        return list(folder.parent.glob(f"{folder.name}{UNFINISHED}*"))
    return [folder] if folder.is_dir() and not has_appeared(folder) else []


def delete(folder: Path) -> None:
    """Deletes a checkpoint of a bucket; a kill leaves one that has not appeared."""
    for name in (COMMITTED, LIST_FILE, f"params/{_METADATA}"):
        (folder / name).unlink(missing_ok=True)
    files.delete_tree(folder)


def write_sums(folder: Path, process: int, is_urgent: Callable[[], bool] = lambda: False) -> None:
    """Sums the files that this host wrote into a checkpoint which has not appeared yet, for host 0's `write_list`.

    is_urgent: asked time and again; files get no checksums from its first yes on.
    """
    written = {name: size for name, size in _files(folder).items() if OWN_FOLDER.format(process) in name.split("/")}
    text = json.dumps(_entries(folder, written, is_urgent), indent=0)
    (folder / SUMS_FILE.format(process)).write_text(text, encoding="utf-8")


def write_list(folder: Path, is_urgent: Callable[[], bool] = lambda: False) -> None:
    """Lists every file of a checkpoint. Those that no host has summed are read once more for it: 1 GB/s.

    is_urgent: as for `write_sums`.
    """
    summed, sizes = {}, _files(folder)
    for path in list(folder.glob(SUMS_FILE.format("*"))):
        with contextlib.suppress(ValueError):  # torn: read here
            summed |= _read_list(path)
        path.unlink()
    # Sums of a file that has changed its size since are not those of the file.
    known = {name for name, size in sizes.items() if summed.get(name, {}).get("bytes") == size}
    entries = _entries(folder, {name: size for name, size in sizes.items() if name not in known}, is_urgent)
    entries = {name: summed[name] if name in known else entries[name] for name in sizes}
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
    sizes = files.tree(folder)
    for number, (name, entry) in enumerate(sorted(entries.items())):
        if name not in sizes:
            return f"{name} is missing"
        size = sizes[name]
        if size != entry["bytes"]:
            return f"{name} has {size} of {entry['bytes']} bytes"
        if share is None or number % share[1] != share[0] or entry["crc32"] is None:
            continue
        if _checksum(folder / name) != entry["crc32"]:
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
    files.move(folder, aside)
    return aside


def _entries(
    folder: Path, sizes: Mapping[str, int], is_urgent: Callable[[], bool]
) -> dict[str, dict[str, int | None]]:
    return {
        name: {"bytes": size, "crc32": _checksum(folder / name, is_urgent)} for name, size in sizes.items()
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


def _files(folder: Path) -> dict[str, int]:
    """Bytes of the files of a checkpoint by name, without its own lists."""
    kept_out, sums = (LIST_FILE, _CHANGES_LATER), SUMS_FILE.partition("{}")[0]
    sizes = {}
    for name, size in files.tree(folder).items():
        last = name.rpartition("/")[2]
        if last not in kept_out and not last.startswith(sums):
            sizes[name] = size
    return sizes


def _checksum(path: Path, is_urgent: Callable[[], bool] = lambda: False) -> int | None:
    """None where time has become short meanwhile."""
    if is_urgent():
        return None
    value = 0
    for block in files.blocks(path):
        value = zlib.crc32(block, value)
        if is_urgent():
            return None
    return value
