"""The same loss and the same gradient however rows, parameters and heads are cut, for both kinds of objective."""

import dataclasses
import itertools

from bound_objective import Bound
import jax
import numpy as np
import pytest
import tiny_run

from xgenmm_jax.data.rows.order import State
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.objectives.dpo import DPO
from xgenmm_jax.training.optimizer import OptimizerConfig, make_optimizer, split, trainable_mask
from xgenmm_jax.training.sharding import MeshConfig, axis_rules, make_mesh, put_rows, row_sharding
from xgenmm_jax.training.step import abstract_state, gradient, shardings_of

MESHES = {
    "fsdp": MeshConfig(fsdp=8),
    "tensor": MeshConfig(fsdp=1, tensor=8),
    "fsdp and tensor": MeshConfig(fsdp=2, tensor=4),
    "replicas of both": MeshConfig(replica=2, fsdp=2, tensor=2),
}


@pytest.fixture(scope="module", params=["next_token", "dpo"])
def case(request, tmp_path_factory):
    """Config, parameters, the reference, one batch of eight rows; loss and gradient on one device."""
    path = tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    config = tiny_run.config(path)
    if request.param == "dpo":
        mixture = ((Synthetic("preference", 400), 1.0),)
        dpo = DPO(beta=0.3, chosen_weight=0.5)
        config = dataclasses.replace(config, objective=dpo, data=tiny_run.data(path, mixture))
    objective = Bound.of(config)
    params, other = (unboxed(jax.jit(objective.init)(jax.random.key(seed))) for seed in (0, 1))
    trainable = trainable_mask(params, config.freeze)
    # Far from the policy: rewards near 0 would be what rounding leaves of two sums of log-probabilities.
    other = jax.tree.map(lambda leaf: 2 * leaf, other)
    reference = split(other, trainable)[0] if config.objective.needs_reference else None
    batches = objective.batches(0, State(), 0, 1)
    rows = next(itertools.islice(batches, 1, None))[0]
    batches.close()
    inputs = config, trainable, *jax.device_get((params, reference)), rows
    return *inputs, gradient_on(*inputs, MeshConfig(), 1)


def gradient_on(config, trainable, params, reference, rows, mesh_config, devices):
    mesh = make_mesh(mesh_config, jax.devices()[:devices])
    boxed = jax.eval_shape(Bound.of(config).init, jax.random.key(0))
    optimizer = make_optimizer(OptimizerConfig(), boxed)
    shardings = shardings_of(abstract_state(boxed, trainable, optimizer, mesh).params)
    trained, frozen = split(shardings, trainable)

    def compute(trained, frozen, reference, rows):
        with axis_rules():
            return gradient(config, trained, frozen, reference, rows, jax.random.key(0), mesh)

    of_reference = None if reference is None else trained
    with jax.set_mesh(mesh):
        jitted = jax.jit(compute, in_shardings=(trained, frozen, of_reference, row_sharding(mesh)))
        placed = jax.device_put(split(params, trainable), (trained, frozen))
        reference = jax.device_put(reference, of_reference)
        return jax.device_get(jitted(*placed, reference, put_rows(rows, row_sharding(mesh))))


SLOW = ("fsdp", "fsdp and tensor")


@pytest.mark.parametrize("mesh", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MESHES])
def test_loss_and_gradient_are_those_of_one_device(case, mesh):
    """Within 1e-5 of the largest entry of each tensor's gradient, and of the loss."""
    *inputs, (grads, loss, metrics) = case
    got_grads, got_loss, got_metrics = gradient_on(*inputs, MESHES[mesh], 8)
    assert abs(got_loss - loss) < 1e-5 * abs(loss)
    got_of = dict(jax.tree_util.tree_leaves_with_path(got_grads))
    for path, want in jax.tree_util.tree_leaves_with_path(grads):
        # The rows of <image> have no gradient: vision tokens stand in their places.
        assert want.any() or "additional_embedding" in str(path)
        np.testing.assert_allclose(got_of[path], want, rtol=0, atol=1e-5 * np.abs(want).max(), err_msg=str(path))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got_metrics, metrics)
