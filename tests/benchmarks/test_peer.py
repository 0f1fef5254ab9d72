"""The peer computes what ours computes: same weights, same samples, same losses, step after step.

Needs the extra `parity`: pytest -m parity tests/benchmarks
"""

import jax
import numpy as np
import peer_weights
import pytest

from benchmarks import workloads
from benchmarks.our_training import OurTraining
from benchmarks.padding import padded

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("stage", ["stage1", "sft_single"])
def test_losses_of_three_steps_are_equal(stage):
    """A wrong mask, crop, label or learning rate on either side would time two different things."""
    from benchmarks.torch_training import TorchTraining

    work = workloads.workload("nano", stage, rows=2, batches=2, dtype="float32")
    model = work.config.model
    ours = OurTraining(work.config, work.batches)
    plain = [padded(batch, model.tokens_per_group, model.vision.grid) for batch in work.batches]
    peer = TorchTraining(model, work.config.optimizer, plain, "cpu", compiled=False, checkpointing=stage == "stage1")
    peer_weights.give(peer.model, model, jax.device_get(ours.state.params))
    ours.run(3)
    peer.run(3)
    np.testing.assert_allclose(ours.losses, peer.losses, rtol=2e-5)
    assert ours.losses[2] < ours.losses[0]
