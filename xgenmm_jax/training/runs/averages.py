"""The moving average of a run's trained parameters (`training/averaging.py`), out of its checkpoints."""

import jax

from xgenmm_jax.paths import Path
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.runs.checkpoints import named_leaves, param_shapes, restore_tree, unnamed


def with_average(checkpoint: Path, params: Params) -> Params:
    """The parameters with those that train replaced by their moving average, laid out and in the dtype as they are.

    Raises ValueError where the checkpoint holds none of them.
    """
    folder = checkpoint / "opt_state"
    leaves = named_leaves(params)
    shapes = param_shapes(folder)
    averages = {name: f"average.{name}" for name in leaves if f"average.{name}" in shapes}
    if not averages:
        raise ValueError(f"checkpoint: '{checkpoint}' holds no moving average; load it with average=False.")
    abstract = {
        key: jax.ShapeDtypeStruct(leaves[name].shape, leaves[name].dtype, sharding=leaves[name].sharding)
        for name, key in averages.items()
    }
    read = restore_tree(folder, abstract)
    return unnamed({**leaves, **{name: read[key] for name, key in averages.items()}}, params)
