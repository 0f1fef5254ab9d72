"""JAX for the tests: eight virtual CPU devices, rank promotion an error, signatures checked at run time.

Programs compile once: as under the `xgenmm` command, they are kept on disk.
"""

import importlib.metadata
import os

os.environ["JAX_PLATFORMS"] = os.environ.get("XGENMM_TEST_PLATFORM", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks another hub than its own, `fixtures/hub_server.py`
flags = ["--xla_force_host_platform_device_count=8", "--xla_cpu_parallel_codegen_split_count=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags.append("--xla_cpu_use_fusion_emitters=false")  # compiles in half the time; later versions do not know it
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in flags if flag.split("=")[0] not in given)]).strip()

import hypothesis  # noqa: E402
import jax  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# The same examples each time, and nothing kept between runs; other ones where RANDOM_EXAMPLES is set.
is_same = "RANDOM_EXAMPLES" not in os.environ
hypothesis.settings.register_profile("same", derandomize=is_same, database=None, deadline=None)
hypothesis.settings.load_profile("same")
jaxtyping.install_import_hook("xgenmm_jax", "beartype.beartype")
# Tests compile much and run little: this compiles three to four times faster. No test may depend on it.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def unchecked_signatures(monkeypatch):
    """The package as users have it: signatures are checked by tests alone, and would refuse a value before our own."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def bucket():
    """The URL of an empty bucket, on a server of this process; skips where the packages for it are absent."""
    from buckets import gs_bucket

    with pytest.MonkeyPatch.context() as patch, gs_bucket(patch) as url:
        yield url


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
