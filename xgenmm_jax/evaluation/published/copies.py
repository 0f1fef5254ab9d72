"""Tables of benchmarks that lie in a bucket, copied to the disk: pictures are read from any place of them."""

import atexit
import functools
import pathlib
import shutil
import tempfile

from xgenmm_jax import files
from xgenmm_jax.paths import Path, is_in_bucket

MOST_BYTES = 32 * 2**30
"""Of a process's copies."""


@functools.cache
def _folder() -> pathlib.Path:
    """Where copies lie (TMPDIR) until the process ends."""
    folder = tempfile.mkdtemp(prefix="xgenmm-benchmarks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def on_disk(path: Path) -> pathlib.Path:
    """The file itself, or a copy of an object, which is made once.

    Raises ValueError where the copies would take more than MOST_BYTES, or than is free on the disk.
    """
    if not is_in_bucket(path):
        return path
    target = _folder() / str(path).partition("://")[2]
    size = files.size(path)
    if target.is_file() and target.stat().st_size == size:
        return target
    have = sum(files.tree(_folder()).values())
    free = shutil.disk_usage(_folder()).free
    if have + size > MOST_BYTES or size > free:
        raise ValueError(
            f"benchmark: '{path}' has {size:,} bytes, and {min(MOST_BYTES - have, free):,} are left for copies in "
            f"'{_folder()}'; copy the benchmarks to a disk, or mount the bucket."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    files.copy(path, target)
    return target
