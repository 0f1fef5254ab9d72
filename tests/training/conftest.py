"""Runs of one config compile once: as under the `xgenmm` command, compiled programs are kept on disk."""

import jax
from jax.experimental.compilation_cache import compilation_cache
import pytest


@pytest.fixture(scope="session", autouse=True)
def kept_compilations(tmp_path_factory):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(tmp_path_factory.mktemp("compiled")))
    jax.config.update(names[1], 0.05)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
