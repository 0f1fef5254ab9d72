"""The files that stand beside a run's checkpoints: config.json, commit, the tokenizer, started_with.json."""

from collections.abc import Callable
import importlib.metadata
import pathlib
import subprocess

import jax

from xgenmm_jax import files, hub
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.paths import Path, user_path
from xgenmm_jax.training.config import Initialize, TrainConfig, read_settings, save_config
from xgenmm_jax.training.config_json import CODE_KEYS, FILE_KEY, PACKAGE, brief, default_of, path_fields_of, to_json
from xgenmm_jax.training.runs import mixture_changes
from xgenmm_jax.training.runs.checkpoint_files import LIST_FILE
from xgenmm_jax.training.runs.checkpoints import newest

CONFIG_FILE = "config.json"
COMMIT_FILE = "commit"
STARTED_WITH_FILE = "started_with.json"
"""What the run began with (`started_with.py`); runs of before it was kept lack it."""

# A run may go on with these changed: they touch its figures not at all, or (the last four) by rounding alone; where a
# loss draws, as that of images in words, accumulation draws anew. So it goes on where chips are fewer or smaller.
_FREE = (
    "mesh", "checkpoint", "log_every", "loader", "watchdog_seconds", "profile", "prompt", "held_out",
    "evaluate", "evaluate_every", "accumulation", "remat", "attention", "chunk",
)  # fmt: skip
_INITIALIZE = f"{Initialize.__module__}:{Initialize.__qualname__}"


def prepare(config: TrainConfig, folder: Path, keep: Callable[[], object] = lambda: None) -> None:
    """Makes the folder and its files, or checks that the run in it is the same.

    keep: called when the folder is there, before config.json: writes started_with.json.

    Raises ValueError where the folder holds a run of another config.
    """
    is_there = check_same(config, folder)
    if jax.process_index() > 0:
        return
    tokenizer = None if is_there else _tokenizer_of(config)
    copied = {} if tokenizer is None else tokenizer_files.copies(tokenizer_files.chosen(tokenizer))
    files.make_folder(folder)
    keep()
    if is_there:
        return
    for name, file in copied.items():
        files.copy(file, folder / name)
    files.write_whole(folder / COMMIT_FILE, commit() + "\n")
    # Last: a folder with a config is complete.
    save_config(config, folder / CONFIG_FILE)


def check_same(config: TrainConfig, folder: Path) -> bool:
    """Whether the folder holds a run; nothing is written. The mixture may have other weights, and sources at its end.

    Raises ValueError where it is one of another config.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return False
    now = to_json(config)
    before = mixture_changes.with_mixture_of(read_settings(path, "copy it again, or delete the folder"), now)
    _check_files(before, now, folder)
    changes = list(_changes(before, now, "", (folder / STARTED_WITH_FILE).is_file()))
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise ValueError(
            f"run folder: '{folder}' was started with another config ({'; '.join(changes[:3])}{more}); "
            "choose another folder with --workdir, or delete this one."
        )
    before, named = tokenizer_files.beside(folder), _tokenizer_of(config)
    if before is not None and named is not None and named.exists():
        now = tokenizer_files.copies(tokenizer_files.chosen(named))
        in_run = tokenizer_files.copies(before)
        if now.keys() != in_run.keys() or not all(files.are_equal(in_run[name], file) for name, file in now.items()):
            raise ValueError(
                f"run folder: '{folder}' was started with another tokenizer than '{named}'; give --data.tokenizer "
                f"'{before}', or choose another folder with --workdir."
            )
    return True


def _tokenizer_of(config: TrainConfig) -> Path | None:
    """The tokenizer that a run's data are read with, a file or its folder; None where they need none."""
    tokenizer = getattr(config.data, "tokenizer", None)
    if tokenizer is None:
        return None
    return hub.local_folder(tokenizer, "data.tokenizer", "tokenizer", is_kept=True)


def commit() -> str:
    """Git's commit of the package, "-dirty" where files differ from it; outside of git the package's version."""
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is not None and done.returncode == 0:
        return done.stdout.strip()
    try:
        return f"version {importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _check_files(old, new, folder: Path) -> None:
    """Raises ValueError where a class or function of a user's own stands in a file of other bytes than before.

    Its file may have moved or been renamed. A run of before files were kept goes on with what is there.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        was, now = old.get(FILE_KEY), new.get(FILE_KEY)
        if isinstance(was, dict) and isinstance(now, dict) and was.get("sha256") != now["sha256"]:
            name = _own_name(next(new[key] for key in CODE_KEYS if key in new))
            raise ValueError(
                f"run folder: '{folder}' was started with {name} of '{was.get('file')}' with sha256 "
                f"{str(was.get('sha256'))[:12]}, and '{now['file']}' is another file now, with sha256 "
                f"{now['sha256'][:12]}; put it back as it was, or choose another folder with --workdir."
            )
        pairs = [(old[key], new[key]) for key in old if key in new and key not in ("evaluate", "held_out")]
    elif isinstance(old, list) and isinstance(new, list):
        pairs = list(zip(old, new, strict=False))
    else:
        return
    for pair in pairs:
        _check_files(*pair, folder)


def _own_name(reference: str) -> str:
    """Of "module:name" the name: a module that was loaded by path is called by its file."""
    return reference.partition(":")[2]


def _changes(old, new, name: str, is_kept: bool):
    """Dotted names of what differs, with both values.

    A checkout and its runs may be moved or copied together: of the tokenizer and of what a run began with the paths do
    not count. is_kept: the bytes of that are in started_with.json, and `started_with.compare` looks at them.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        is_start = new.get("class") == _INITIALIZE
        for key in [*old, *(key for key in new if key not in old)]:
            if key in _FREE or key in ("tokenizer", FILE_KEY):
                continue
            if key in CODE_KEYS and FILE_KEY in old and FILE_KEY in new and key in old and key in new:
                # The file is the one of before (`_check_files`), whatever it is called.
                if _own_name(old[key]) == _own_name(new[key]):
                    continue
            # A field that a later version added had its default before.
            before = old[key] if key in old else default_of(new.get("class"), key)
            after = new.get(key)
            is_path = is_start or key in path_fields_of(new.get("class"))
            if is_path and is_kept and _same_name(before, after) or is_start and _same_start(before, after):
                continue
            yield from _changes(before, after, f"{name}.{key}".lstrip("."), is_kept)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _changes(*pair, f"{name}.{number}", is_kept)
    elif old != new:
        yield f"{name} {brief(old)} before, {brief(new)} now"


def _same_start(before, after) -> bool:
    """Whether two paths hold the same weights: files or checkpoints of the same bytes; or the first is gone, and the
    second has its name."""
    if not _same_name(before, after):
        return False
    try:
        paths = [user_path(path, "initialize") for path in (before, after)]
        if not paths[0].exists():
            return True
        lists = [_list_of(path) for path in paths]
    except ValueError:  # no checkpoint, or a bucket that does not answer
        return False
    return all(path.is_file() for path in lists) and files.are_equal(*lists)


def _same_name(before, after) -> bool:
    if not (isinstance(before, str) and isinstance(after, str)):
        return False
    return pathlib.PurePath(before).name == pathlib.PurePath(after).name


def _list_of(path: Path) -> Path:
    """A file itself; of a run folder the newest checkpoint's list of files and checksums."""
    return path if path.is_file() else newest(path) / LIST_FILE
