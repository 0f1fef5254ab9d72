"""The moving average of a run's trained parameters (`training/averaging.py`), out of its checkpoints."""

import jax
import numpy as np

from xgenmm_jax.convert.parameter_store import MergedReader, ParameterReader, Reader
from xgenmm_jax.convert.rules import Shape
from xgenmm_jax.convert.scratch import FRESH, Scratch
from xgenmm_jax.paths import Path
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.runs.checkpoints import named_leaves, param_shapes, restore_tree, unnamed

NAME = "average."
"""What the names of averages begin with in the optimizer's state; behind it stands the parameter's, with dots."""


def with_average(checkpoint: Path, params: Params) -> Params:
    """The parameters with those that train replaced by their moving average, laid out and in the dtype as they are.

    Raises ValueError where the checkpoint holds none of them.
    """
    folder = checkpoint / "opt_state"
    leaves = named_leaves(params)
    shapes = param_shapes(folder)
    averages = {name: f"{NAME}{name}" for name in leaves if f"{NAME}{name}" in shapes}
    if not averages:
        raise ValueError(f"checkpoint: '{checkpoint}' holds no moving average; load it with average=False.")
    abstract = {
        key: jax.ShapeDtypeStruct(leaves[name].shape, leaves[name].dtype, sharding=leaves[name].sharding)
        for name, key in averages.items()
    }
    read = restore_tree(folder, abstract)
    return unnamed({**leaves, **{name: read[key] for name, key in averages.items()}}, params)


def average_reader(checkpoint: Path, params: Reader) -> Reader:
    """As `with_average`, of parameters that are read a slice at a time."""
    return MergedReader(params, _Averages(checkpoint / "opt_state"))


class _Averages(ParameterReader):
    """The averages alone, by the parameters' paths."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        names = [name for name in self.paths if name.startswith(NAME)]
        self._names = {name.removeprefix(NAME).replace(".", "/"): name for name in names}
        self.paths = tuple(self._names)

    @property
    def shapes(self) -> dict[str, Shape]:
        return {path: tuple(self._open(name).shape) for path, name in self._names.items()}

    def read(self, path: str, layer: int | None = None, scratch: Scratch = FRESH) -> np.ndarray:
        return super().read(self._names[path], layer, scratch)
