"""A run's seed may be of any size."""

import dataclasses

import jax
import numpy as np
import pytest
import toy_run

from xgenmm_jax.training.config_json import from_json, to_json
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics


def figures(seed: int, folder) -> list[float]:
    config = dataclasses.replace(toy_run.config(steps=3), seed=seed, log_every=1)
    params = jax.device_get(train(config, folder).params)
    return [row["loss"] for row in read_metrics(folder)] + np.asarray(params["decoder"]["kernel"]).tolist()


def test_runs_of_large_seeds_are_runs_of_their_own(tmp_path):
    """--seed 4294967301 began as --seed 5: jax cuts a seed to 32 bits."""
    seeds = (5, 2**32 + 5, 2**70 + 5)
    once = {seed: figures(seed, tmp_path / str(seed)) for seed in seeds}
    assert len({tuple(values) for values in once.values()}) == len(seeds)
    assert figures(seeds[1], tmp_path / "again") == once[seeds[1]]


@pytest.mark.parametrize("seed", [2**32, 2**64 - 1, 10**30])
def test_a_large_seed_is_kept_with_the_run(seed):
    config = dataclasses.replace(toy_run.config(), seed=seed)
    assert dataclasses.replace(config, seed=to_json(config)["seed"]).seed == seed == from_json(seed, int)


@pytest.mark.parametrize("seed", [-1, -(2**40)])
def test_a_seed_below_zero_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed: got {seed}, wanted at least 0"):
        dataclasses.replace(toy_run.config(), seed=seed)
