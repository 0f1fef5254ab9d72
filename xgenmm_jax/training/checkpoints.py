"""Checkpoints: complete parameters, optimizer state and data state, written in the background, atomically.

A checkpoint is a folder `checkpoints/<step>` of orbax with the items params, opt_state and progress. It appears under
its name only when whole, so what has a number can be read. It knows no mesh: it restores onto any.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from xgenmm_jax.data.order import State
from xgenmm_jax.training.objective import Params
from xgenmm_jax.training.optimizer import path_name
from xgenmm_jax.training.step import TrainState

FOLDER = "checkpoints"
CHUNK_BYTES = 256 * 2**20
"""Leaves above this are stored in chunks."""


class Progress(NamedTuple):
    """What a run has done, on the host."""

    data: State = State()
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of training, compilation included, summed over restarts


class Checkpoints:
    """Those of one run. Close it, or use it in a `with`: the last one may still be on its way to the disk."""

    def __init__(self, run: Path, keep: int):
        self._folder = run.absolute() / FOLDER
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True, create=True)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=options,
            item_handlers={
                "params": ocp.PyTreeCheckpointHandler(),
                "opt_state": ocp.PyTreeCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """Step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress) -> None:
        """Copies the state to the host, then writes in the background. A step that is there already is left alone."""
        step = int(state.step)
        if step == self.latest():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.PyTreeSave(state.params, save_args=jax.tree.map(_by_layer, state.params)),
                opt_state=ocp.args.PyTreeSave(_named(state.opt_state)),
                progress=ocp.args.JsonSave({**progress._asdict(), "data": list(progress.data)}),
            ),
        )

    def wait(self) -> None:
        """Until everything is on the disk."""
        self._manager.wait_until_finished()

    def restore(self, abstract: TrainState) -> tuple[TrainState, Progress]:
        """The newest state, laid out as `abstract` says, whatever mesh wrote it.

        Raises ValueError where it was written by a model of another size.
        """
        step = self.latest()
        assert step is not None, "restore() without a checkpoint; ask latest() first"
        folder = self._folder / str(step)
        params = restore_params(folder, abstract.params)
        opt_state = _restore(folder / "opt_state", _named(abstract.opt_state))
        progress = ocp.JsonCheckpointHandler().restore(folder / "progress", args=ocp.args.JsonRestore())
        state = TrainState(
            step=jax.device_put(jnp.asarray(step, jnp.int32), abstract.step.sharding),
            params=params,
            opt_state=_unnamed(opt_state, abstract.opt_state),
            healthy=jax.device_put(jnp.ones((), bool), abstract.healthy.sharding),
        )
        return state, Progress(**{**progress, "data": State(*progress["data"])})


def restore_params(source: Path, abstract: Params) -> Params:
    """Parameters of a run folder's newest checkpoint, or of one checkpoint.

    abstract: ShapeDtypeStructs with shardings; a tree that holds some of the parts only reads those.

    Raises ValueError where there is no checkpoint, or a part has another size.
    """
    folder = newest(source) / "params"
    check_params(folder, abstract)
    return _restore(folder, abstract)


def newest(source: Path) -> Path:
    """The newest checkpoint of a run folder; a checkpoint is its own newest. Raises ValueError where there is none."""
    source = source.absolute()
    if (source / "params").is_dir():
        return source
    folder = source / FOLDER
    steps = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    if not steps:
        what = "no checkpoint" if source.is_dir() else "no such folder"
        raise ValueError(f"checkpoint: '{source}': {what}; give a folder that `xgenmm train` wrote and saved into.")
    return folder / str(max(steps))


def param_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters in a checkpoint's `params` folder; no array is read."""
    metadata = ocp.PyTreeCheckpointHandler().metadata(folder)
    tree = getattr(metadata, "tree", metadata)
    return {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def check_params(folder: Path, abstract: Params) -> None:
    """Raises ValueError where the checkpoint does not hold every parameter at the wanted shape."""
    have = param_shapes(folder)
    parts = set(abstract)
    have = {name: shape for name, shape in have.items() if name.split("/")[0] in parts}
    wanted = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    problems = differences(have, wanted)
    if problems:
        more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        raise ValueError(
            f"checkpoint: '{folder.parent}' is of another size than the model: {', '.join(problems[:2])}{more}; use "
            "the model of the config.json beside it, or another checkpoint."
        )


def differences(have: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What keeps two sets of named shapes from being the same, a phrase each: misshapen, missing, spare."""
    both = sorted(wanted.keys() & have.keys())
    return [
        *(f"{name} has {_shape(have[name])} for {_shape(wanted[name])}" for name in both if have[name] != wanted[name]),
        *(f"{name} is missing" for name in sorted(wanted.keys() - have.keys())),
        *(f"{name} is spare" for name in sorted(have.keys() - wanted.keys())),
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _by_layer(leaf: jax.Array) -> ocp.SaveArgs:
    """Large stacked leaves are stored a layer a chunk, so that export reads them a layer at a time."""
    is_stacked = leaf.ndim > 1 and leaf.nbytes > CHUNK_BYTES
    return ocp.SaveArgs(shard_axes=(0,)) if is_stacked else ocp.SaveArgs()


def _restore(folder: Path, abstract: Any) -> Any:
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    return ocp.PyTreeCheckpointHandler().restore(
        folder, args=ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=True)
    )


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path: optax's NamedTuples, empty states and cut-out subtrees need no place in the file."""
    return {path_name(path).replace("/", "."): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _unnamed(named: Mapping[str, Any], like: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: named[path_name(path).replace("/", ".")], like)
