"""The nano model before stage 1, twice."""

import nano_runs
import pytest

import xgenmm_jax
from xgenmm_jax.nano.connector_start import pooling_start


@pytest.fixture(scope="session")
def pooling(tmp_path_factory):
    return nano_runs.start(tmp_path_factory.mktemp("runs") / "pooling", pooling_start)


@pytest.fixture(scope="session")
def random(tmp_path_factory):
    return nano_runs.start(tmp_path_factory.mktemp("runs") / "random", None)


@pytest.fixture(scope="session")
def lmm(pooling):
    return xgenmm_jax.load(pooling)
