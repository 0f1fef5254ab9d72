"""JAX for the tests: eight virtual CPU devices, rank promotion an error, signatures checked at run time."""

import os

os.environ["JAX_PLATFORMS"] = os.environ.get("XGENMM_TEST_PLATFORM", "cpu")
flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8".strip()

import jax  # noqa: E402
import jaxtyping  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("xgenmm_jax", "beartype.beartype")
# Tests compile much and run little: this compiles three to four times faster. No test may depend on it.
jax.config.update("jax_disable_most_optimizations", True)
