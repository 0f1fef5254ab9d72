"""Compiled programs on disk, in a place that all hosts of a run share: a restart compiles nothing large on any."""

import contextlib
import logging
import zlib

import jax

from xgenmm_jax.paths import Path

LOG = logging.getLogger(__name__)

FOLDER = "compilation_cache"


def share(run: Path) -> None:
    """Keeps the programs of a run of several hosts in its folder; call it once something may be written there.

    JAX writes on process 0 alone, so in a folder of its own any other host would find nothing. One process alone, and
    hosts whose JAX has a folder (JAX_COMPILATION_CACHE_DIR; empty: none is kept), keep what they have. Every program
    is kept, however quickly it compiled. Those of one host's own devices, a few arrays each, are found on host 0 alone,
    as their keys name the device; so are all on CPUs, whose keys name the process
    (docs/reference/libraries.md#compiled-programs-of-several-hosts).
    """
    if jax.process_count() == 1 or jax.config.jax_compilation_cache_dir is not None:
        return
    if jax.process_index() == 0:
        delete_torn(run / FOLDER)
    folder = str(run / FOLDER)  # of a bucket too: JAX opens what etils does
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "://" in folder:
        # XLA would be told to keep what it tuned for a GPU there, and opens local paths alone.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def delete_torn(folder: Path) -> None:
    """Deletes programs that a killed host 0 wrote in part. JAX would warn of each at every start, and keep it."""
    for path in list(folder.glob("*-cache")) if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # it is looked at once more at the next start
            if _is_torn(path.read_bytes()):
                path.unlink()
                LOG.warning("'%s' was not written to its end and is deleted; it is compiled again", path)


def _is_torn(content: bytes) -> bool:
    """Of what JAX has compressed with zlib; other compressions are left to it."""
    if content and content[0] != 0x78:
        return False
    stream = zlib.decompressobj()
    try:
        stream.decompress(content)
    except zlib.error:
        return True
    return not stream.eof
