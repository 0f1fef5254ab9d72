"""The step that a plan compiles, kept in a folder of JAX's compilation cache, where the run on the chips looks for it.

JAX names a program's file by a hash of the program, the versions of jaxlib and of the compiler, the flags, the numbers
of the devices and the topology (docs/reference/libraries.md#compiled-programs-of-several-hosts). On CPUs a run finds
what was compiled from shapes alone (tests/planning/test_kept.py); whether a TPU's topology has the hash of the one that
the compiler knows by name has not been seen.
"""

from collections.abc import Callable, Iterator
import contextlib
import importlib.metadata
from pathlib import Path
import warnings

import jax

STEP = "jit_traced-*-cache"
"""Files of the step, by the name of the function in `make_step`."""


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[Callable[[], str]]:
    """What is compiled inside stays in the folder; gives a function that says so in a sentence or two, afterwards.

    A program that is there already is compiled again, since only a chip could load it, and left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = {path.name for path in folder.glob(STEP)}
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")
        yield lambda: _said(folder, before)


def _said(folder: Path, before: set[str]) -> str:
    paths = list(folder.glob(STEP))
    new = [path for path in paths if path.name not in before]
    if not paths:
        return f"the step was not kept in '{folder}': JAX wrote nothing."
    size = sum(path.stat().st_size for path in new or paths) / 2**20
    what = f"the step is kept in '{folder}' ({size:.1f} MiB)" if new else f"'{folder}' holds steps already"
    versions = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jaxlib", "libtpu"))
    return (
        f"{what}. A run looks for it with JAX_COMPILATION_CACHE_DIR={folder}, on several hosts by itself in its own "
        f"compilation_cache/. It is found with {versions} and the same LIBTPU_INIT_ARGS alone, and no TPU has shown "
        "yet that it is: JAX_EXPLAIN_CACHE_MISSES=1 tells of each program that was not found."
    )
