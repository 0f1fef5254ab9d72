"""The program of a run: what `train`, `xgenmm plan` and the benchmarks run or compile is assembled here."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array
import optax

from xgenmm_jax.models.lora import LoRA, with_updates
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.averaging import averaged
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.base import Objective, Params
from xgenmm_jax.training.optimizer import make_optimizer, trainable_mask
from xgenmm_jax.training.step import StepFunction, TrainState, abstract_state, make_step

UPDATES_SEED = 0x10A
"""Folded into the key of starting weights for those of low-rank updates."""


class Program(NamedTuple):
    """What a run computes with, on which devices. Nothing is compiled yet and no memory is taken."""

    mesh: Mesh
    init: Callable[[Array], Params]
    """Key -> parameters, boxed with their logical axis names. Jitted, so that shapes and values share one trace."""
    optimizer: optax.GradientTransformation
    trainable: Any
    """The tree of parameters with True where one trains."""
    abstract: TrainState
    """Shapes, dtypes and shardings of the state."""
    step: StepFunction


def assemble(config: TrainConfig, mesh: Mesh) -> Program:
    """The program of a run on a mesh, whose devices need not exist.

    Raises ValueError where model, data and objective do not fit each other, or `freeze` names nothing.
    """
    config.objective.check(config.model, config.data)
    if (rows := getattr(config.data, "batch_rows", None)) is not None:
        config.objective.check_micro_batch(rows // config.accumulation)
    init = jax.jit(functools.partial(boxed_params, config.objective, config.model, config.lora))
    boxed = jax.eval_shape(init, jax.random.key(0))
    optimizer = make_optimizer(config.optimizer, boxed)
    if config.average_decay:
        optimizer = averaged(optimizer)
    trainable = trainable_mask(unboxed(boxed), config.freeze, config.lora)
    abstract = abstract_state(boxed, trainable, optimizer, mesh)
    return Program(mesh, init, optimizer, trainable, abstract, make_step(config, trainable, optimizer, mesh, abstract))


def boxed_params(objective: Objective, model: Any, lora: LoRA | None, key: Array) -> Params:
    """Boxed parameters from a key: the objective's, which low-rank updates stand beside and do not change."""
    boxed = objective.init(model, key)
    return boxed if lora is None else with_updates(boxed, lora, jax.random.fold_in(key, UPDATES_SEED))
