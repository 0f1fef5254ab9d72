"""Run folders of the nano model as it starts: the shipped tower and decoder, and a resampler that never trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax

from experiments.nano import common, stage1
from xgenmm_jax.models.partitioning import unboxed
from xgenmm_jax.training import optimizer, step
from xgenmm_jax.training.checkpoints import Checkpoints, Progress
from xgenmm_jax.training.initialize import initialize_params
from xgenmm_jax.training.run_folder import prepare
from xgenmm_jax.training.sharding import MeshConfig, make_mesh


def start(folder: Path, connector_start: Callable | None) -> Path:
    """Stage 1 before its first step, with any-resolution views."""
    config = stage1.config()
    config = replace(
        config,
        data=replace(config.data, anyres=common.ANY_RES),
        initialize=replace(config.initialize, connector_start=connector_start),
    )
    objective = config.objective()
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    adam = optimizer.make_optimizer(config.optimizer, boxed)
    trainable = jax.tree.map(lambda _: False, unboxed(boxed))
    abstract = step.abstract_state(objective, trainable, adam, mesh).params
    params = initialize_params(config.initialize, objective, 0, abstract, config.model)
    prepare(config, folder)
    with Checkpoints(folder, keep=1) as checkpoints:
        zero = jax.numpy.int32(0)
        checkpoints.save(step.TrainState(zero, params, {"count": zero}, jax.numpy.ones((), bool)), Progress())
    return folder
