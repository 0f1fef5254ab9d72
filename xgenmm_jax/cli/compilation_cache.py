"""Where JAX keeps compiled programs between processes."""

import os
from pathlib import Path
import sys

from xgenmm_jax.paths import home, user_path

_is_named = True
"""Whether the user named the folder, or nobody asked `keep_compilations` for one."""


def keep_compilations() -> None:
    """Lets JAX keep compiled programs on disk between processes: stages and restarts compile once.

    The folder is JAX_COMPILATION_CACHE_DIR, by default xgenmm/jax in XDG_CACHE_HOME or ~/.cache, and of a run of
    several hosts its own (`training/hosts/compilations.py`). Without a home, or where nothing can be written, programs
    are not kept; one that only can be read is read.
    """
    global _is_named
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    _is_named = given is not None
    folder = default_cache() if given is None else given
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    if not folder or "://" in folder:  # switched off; a bucket
        return
    try:
        path = user_path(folder, "JAX_COMPILATION_CACHE_DIR")
    except ValueError:
        path = Path(folder)
    if writable(path):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(path)
    elif path.is_dir():
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(path)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1e9"  # else a warning for each program
    else:
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
        if given is not None:
            warning = f"JAX_COMPILATION_CACHE_DIR: '{path}' cannot be written; programs are not kept."
            print(f"xgenmm: {warning}", file=sys.stderr)


def leave_to_run() -> None:
    """Several hosts keep programs in their run's folder, unless the user named one. Call it when they have joined."""
    import jax

    if jax.process_count() > 1 and not _is_named:
        jax.config.update("jax_compilation_cache_dir", None)


def default_cache() -> str:
    """Where programs are kept; "" without a home. A relative XDG_CACHE_HOME is none, as its specification says."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    folder = home()
    if os.path.isabs(given):
        return os.path.join(given, "xgenmm", "jax")
    return "" if folder is None else str(folder / ".cache" / "xgenmm" / "jax")


def writable(folder: Path) -> bool:
    """Whether a folder can be written to; it is made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
