"""Compiled programs on disk, in a place that all hosts of a run share: a restart compiles nothing large on any."""



import jax

from xgenmm_jax.paths import Path

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
    folder = str(run / FOLDER)  # of a bucket too: JAX opens what etils does
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "://" in folder:
        # XLA would be told to keep what it tuned for a GPU there, and opens local paths alone.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
