"""The moving average of what a run trains."""

import drawing_cases as cases
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.training.averaging import averaged, moved
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.flow_matching import FlowMatching


def test_new_parameters_count_much_at_first_and_then_as_the_decay_says():
    """By hand: the old average counts 1/10, 2/11, 3/12, and from the fourth step on 0.3 (4/13 is more)."""
    optimizer = averaged(optax.sgd(1.0))
    state = optimizer.init({"w": jnp.array([8.0])})
    expected = 8.0
    for step, new in enumerate((0.0, 4.0, -2.0, 6.0, 10.0)):
        _, state = optimizer.update({"w": jnp.ones(1)}, state, {"w": jnp.array([new])})
        state = moved(state, {"w": jnp.array([new])}, 0.3, jnp.int32(step))
        old = min(0.3, (1 + step) / (10 + step))
        expected = old * expected + (1 - old) * new
        np.testing.assert_allclose(state.average["w"], expected, rtol=1e-6)


def test_parameters_that_stay_keep_their_average_to_the_bit():
    still = {"w": jnp.asarray(np.random.default_rng(0).normal(size=100), jnp.float32)}
    state = averaged(optax.sgd(1.0)).init(still)
    for step in range(5):
        state = moved(state, still, 0.9999, jnp.int32(step))
    np.testing.assert_array_equal(state.average["w"], still["w"])


def test_low_rank_updates_have_none():
    """Loading merges them, so that an average of them was never found, and one of `lora.whole` went beside updates of
    the last step."""
    with pytest.raises(ValueError, match="average_decay: no moving average of low-rank updates"):
        TrainConfig(
            "x", cases.model(), cases.data(4, 2), FlowMatching(), steps=1, lora=LoRA(), average_decay=0.9
        )  # fmt: skip
