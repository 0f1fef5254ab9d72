"""What is compiled into a step, and what is not."""

from dataclasses import replace

import jax
import pytest

from experiments.nano import sft_multi, stage1
from xgenmm_jax.planning.program import lower_step
from xgenmm_jax.training.sharding import make_mesh


def lowered(config) -> str:
    return lower_step(config, make_mesh(config.mesh, jax.devices()[:1]))[0].as_text()


def test_stages_of_equal_rows_share_a_program():
    """Data, rate, schedule and length of the run are not in it; the shape of a row is."""
    first, later = stage1.config(), sft_multi.config()
    assert (first.steps, first.optimizer.peak_lr) != (later.steps, later.optimizer.peak_lr)
    program = lowered(first)
    assert lowered(later) == program
    assert lowered(replace(later, data=replace(later.data, batch_rows=8))) != program


def test_a_warmup_longer_than_the_run_is_refused():
    config = replace(stage1.config(), steps=10)
    with pytest.raises(ValueError, match="warmup_steps: got 50 for a run of 10 steps"):
        lowered(config)
