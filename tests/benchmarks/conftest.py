"""For tests that run a benchmark whole: its sides are processes of their own, which know nothing of these settings."""

import pytest


@pytest.fixture
def quick(monkeypatch, tmp_path_factory):
    """They compile without optimizing and keep what they compiled, as the tests do."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "compiled_by_sides"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
    # Set by the benchmarks where it is not; here, so that it goes when the test ends.
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
