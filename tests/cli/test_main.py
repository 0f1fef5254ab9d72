"""What the `xgenmm` command sets up before a subcommand runs."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from xgenmm_jax.cli.main import keep_memory

kept = keep_memory()
len(bytes([1]) * (48 << 20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for value in range(4):
    len(bytes([value]) * (48 << 20))
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 4 * (48 << 20) // os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another C library: there is nothing to keep")
@pytest.mark.parametrize(
    "variables, keeps",
    [
        ({"JAX_PLATFORMS": "cpu"}, True),
        ({"JAX_PLATFORMS": "cuda"}, False),
        ({"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "2"}, False),
    ],
)
def test_freed_memory_is_kept_where_the_cpu_computes(variables, keeps):
    """Blocks of 48 MB are always mapped by themselves otherwise (at most 32 MB are not): each is faulted in anew."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**given, **variables}, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    assert kept == str(keeps)
    assert int(faults) < PAGES / 10 if keeps else int(faults) > PAGES / 2
