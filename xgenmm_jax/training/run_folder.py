"""The files that stand beside a run's checkpoints: config.json, commit, tokenizer.model."""

import importlib.metadata
from pathlib import Path
import shutil
import subprocess

import jax

from xgenmm_jax.training.config import PACKAGE, TrainConfig, brief, default_of, read_object, save_config, to_json

CONFIG_FILE = "config.json"
COMMIT_FILE = "commit"
TOKENIZER_FILE = "tokenizer.model"

# A run may go on with these changed: they do not touch its figures.
_FREE = (
    "mesh", "checkpoint", "log_every", "loader", "picture_folder", "watchdog_seconds", "profile", "gives_conversations",
)  # fmt: skip


def prepare(config: TrainConfig, folder: Path) -> None:
    """Makes the folder and its files, or checks that the run in it is the same.

    Raises ValueError where the folder holds a run of another config.
    """
    if check_same(config, folder) or jax.process_index() > 0:
        return
    tokenizer = getattr(config.data, "tokenizer", None)
    if tokenizer is not None and not Path(tokenizer).is_file():
        raise ValueError(f"data.tokenizer: no file '{tokenizer}'; wanted a SentencePiece model.")
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / TOKENIZER_FILE)
    (folder / COMMIT_FILE).write_text(commit() + "\n")
    # Last and at once: a folder with a config is complete.
    path = folder / CONFIG_FILE
    unfinished = path.with_suffix(".partial")
    save_config(config, unfinished)
    unfinished.replace(path)


def check_same(config: TrainConfig, folder: Path) -> bool:
    """Whether the folder holds a run; nothing is written.

    Raises ValueError where it is one of another config.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return False
    changes = list(_changes(read_object(path, {}, "copy it again, or delete the folder"), to_json(config), ""))
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise ValueError(
            f"run folder: '{folder}' was started with another config ({'; '.join(changes[:3])}{more}); "
            "choose another folder with --workdir, or delete this one."
        )
    return True


def commit() -> str:
    """Git's commit of the package, "-dirty" where files differ from it; outside of git the package's version."""
    here = Path(__file__).parent
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


def _changes(old, new, name: str):
    """Dotted names of what differs, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in _FREE:
                # A field that a later version added had its default before.
                before = old[key] if key in old else default_of(new.get("class"), key)
                yield from _changes(before, new.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _changes(*pair, f"{name}.{number}")
    elif old != new:
        yield f"{name} {brief(old)} before, {brief(new)} now"
