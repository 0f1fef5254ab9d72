"""Checkpoints: parameters, optimizer state and data state, written in the background, atomically.

Parameters are complete; of a run with low-rank updates these alone, and what trains whole (`models/lora.py:stored`).

A checkpoint is a folder `checkpoints/<step>` of orbax with the items params, opt_state and progress. It appears under
its name only when whole. One that was damaged afterwards is put aside and the one before it is used. A checkpoint
knows no mesh: it restores onto any, and onto any number of hosts and slices.
"""

from collections.abc import Mapping, Sequence
import logging
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from xgenmm_jax import appending
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.models.lora import LoRA, stored
from xgenmm_jax.ops.partitioning import path_name
from xgenmm_jax.paths import Path, is_in_bucket
from xgenmm_jax.requests import RequestError
from xgenmm_jax.training.hosts.distributed import anyone, first_line
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.runs import checkpoint_files, replica_restore
from xgenmm_jax.training.runs.checkpoint_listing import Listing
from xgenmm_jax.training.step import TrainState

LOG = logging.getLogger(__name__)

FOLDER = "checkpoints"
ITEMS = ("params", "opt_state", "progress")
CHUNK_BYTES = 256 * 2**20
"""Leaves above this are stored in chunks."""


class SizeError(ValueError):
    """A checkpoint is whole and of another model."""


class Progress(NamedTuple):
    """What a run has done, on the host."""

    data: State = State()
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of training, compilation included, summed over restarts
    seen: Mapping[str, Sequence[int]] = MappingProxyType({})  # `MixtureShares.counts` of the host that saves


class Checkpoints:
    """Those of one run. Close it, or use it in a `with`: the last one may still be on its way to the disk.

    keep: newest checkpoints that stay. keep_every: those at multiples of so many steps stay too; 0: none.
    lora: the run's; its checkpoints then hold `stored` of a tree, and give a state with these parameters alone.
    """

    def __init__(self, run: Path, keep: int, keep_every: int = 0, lora: LoRA | None = None):
        self._lora = lora
        self._folder = run.absolute() / FOLDER
        for path in checkpoint_files.unfinished(self._folder):
            LOG.warning("checkpoint: '%s' was not written to its end and is left out", path)
            if is_in_bucket(path) and jax.process_index() == 0:
                checkpoint_files.delete(path)
        self._keep, self._keep_every = keep, keep_every
        policies = [checkpoint_managers.LatestN(keep)]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        policy = checkpoint_managers.AnyPreservationPolicy(policies)
        listing = self._listing = Listing()
        options = ocp.CheckpointManagerOptions(
            # In a bucket orbax asks before each deletion what kind it is, which whoever may write may not ask.
            preservation_policy=None if is_in_bucket(run) else policy,
            cleanup_tmp_directories=not is_in_bucket(run),
            create=True,
            async_options=listing.options(self._unfinished),
        )
        self._saving = 0
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
        self._delete_old()

    def latest(self) -> int | None:
        """Step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress, is_urgent: bool = False) -> None:
        """Copies the state to the host, then writes in the background. A step that is there already is left alone.

        is_urgent: the machine is about to go; files get no checksums, which would have to be read again for them, nor
        do those of the checkpoint before that are not summed yet.
        """
        step = int(state.step)
        if step == self.latest():
            return
        appending.send_all()  # lines of these steps are not written again
        if is_urgent:
            self._listing.is_urgent = True
        self._manager.wait_until_finished()  # the one before may still be summed
        self._delete_old()
        self._listing.is_urgent, self._saving = is_urgent, step
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=params_args(stored(state.params, self._lora)),
                opt_state=ocp.args.PyTreeSave(named_leaves(state.opt_state)),
                progress=ocp.args.JsonSave(
                    {**progress._asdict(), "data": list(progress.data), "seen": dict(progress.seen)}
                ),
            ),
        )

    def _unfinished(self) -> list[Path]:
        """The checkpoint that is being written."""
        return checkpoint_files.being_written(self._folder / str(self._saving))

    def _delete_old(self) -> None:
        """Of a bucket, what the policy of orbax deletes on a disk."""
        if is_in_bucket(self._folder) and jax.process_index() == 0:
            try:
                for step in checkpoint_files.steps(self._folder)[self._keep :]:
                    if not (self._keep_every and step % self._keep_every == 0):
                        checkpoint_files.delete(self._folder / str(step))
            except RequestError as error:
                LOG.warning("checkpoint: an old one is deleted later: %s", error)

    def wait(self) -> None:
        """Until everything is on the disk."""
        self._manager.wait_until_finished()

    def restore(self, abstract: TrainState) -> tuple[TrainState, Progress] | None:
        """The newest state, laid out as `abstract` says, whatever mesh wrote it. None where the run has none.

        A damaged checkpoint is named in a warning and put aside as `<step>.damaged`; the one before it is used. One
        whose files are what was written is not damaged, whatever keeps it from being read. All hosts must call this;
        they share the reading of checksums and agree.

        Raises ValueError where it was written by a model of another size, could not be read (memory that ran out, a
        file system that does not answer), or all are damaged.
        """
        steps = checkpoint_files.steps(self._folder)
        for step in steps:
            folder = self._folder / str(step)
            # Checksums first: each host reads its share of the files.
            cause = checkpoint_files.damage(folder, ITEMS, (jax.process_index(), jax.process_count()))
            if not anyone(cause is not None):
                # Whole files, or a checkpoint without checksums: read it, and let the hosts agree on how that went.
                restored, error = None, None
                try:
                    restored = self._read(folder, step, abstract)
                except SizeError:
                    raise
                except Exception as raised:  # tensorstore, orbax and json each have their own
                    error = raised
                if not anyone(error is not None):
                    return restored
                cause = first_line(error) if error is not None else None
                # Not damage, or whole by its checksums: to go on from an older one would lose steps for nothing.
                is_other = error is not None and not _tells_damage(error)
                if anyone(is_other or checkpoint_files.has_checksums(folder)):
                    raise ValueError(
                        f"checkpoint: '{folder}' was not read ({cause or 'another host tells why'}), and nothing says "
                        "that it is damaged; it stays as it is. Give the run more memory or chips, or mend the file "
                        "system, and start again."
                    ) from error
            # Damaged: put aside, so that the step can be written again, and the one before it is tried.
            self._put_aside(folder, cause or "another host tells why")
        if steps:
            raise ValueError(
                f"checkpoint: all of '{self._folder}' are damaged; mend one and take '{checkpoint_files.DAMAGED}' off "
                "its name, or start anew with another --workdir."
            )
        return None

    def _read(self, folder: Path, step: int, abstract: TrainState) -> tuple[TrainState, Progress]:
        params = restore_params(folder, stored(abstract.params, self._lora))
        opt_state = restore_tree(folder / "opt_state", named_leaves(abstract.opt_state))
        state = TrainState(
            step=jax.device_put(jnp.asarray(step, jnp.int32), abstract.step.sharding),
            params=params,
            opt_state=unnamed(opt_state, abstract.opt_state),
            healthy=jax.device_put(jnp.ones((), bool), abstract.healthy.sharding),
        )
        return state, progress_of(folder)

    def _put_aside(self, folder: Path, cause: str) -> None:
        LOG.warning("checkpoint: '%s' is damaged (%s); the one before it is used", folder, cause)
        if jax.process_index() == 0:
            LOG.warning("checkpoint: it is now '%s'", checkpoint_files.put_aside(folder).name)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"put aside {folder.name}")
        self._manager.reload()


def params_args(params: Params) -> ocp.args.PyTreeSave:
    """How parameters are written."""
    return ocp.args.PyTreeSave(params, save_args=jax.tree.map(_by_layer, params))


def restore_params(source: Path, abstract: Params) -> Params:
    """What a run folder's newest checkpoint, or one checkpoint, holds of parameters; `reading.restore_run` gives all.

    abstract: ShapeDtypeStructs with shardings; a tree that holds some of the parts only reads those.

    Raises ValueError where there is no checkpoint, or a part has another size.
    """
    folder = newest(source) / "params"
    check_params(folder, abstract)
    return restore_tree(folder, abstract)


def saved_steps(run: Path) -> list[int]:
    """The steps that a run has saved, wholly or not, newest first."""
    return checkpoint_files.steps(run / FOLDER)


def newest(source: Path) -> Path:
    """The newest whole checkpoint of a run folder; a checkpoint is its own newest. Damaged ones are told in a warning.

    Raises ValueError where there is none.
    """
    checkpoint_files.check_place(source, "checkpoint")
    source = source.absolute()
    if (source / "params").is_dir():
        return source
    folder = source / FOLDER
    for step in checkpoint_files.steps(folder):
        cause = checkpoint_files.damage(folder / str(step), ("params",))
        if cause is None:
            return folder / str(step)
        LOG.warning("checkpoint: '%s' is damaged (%s); the one before it is used", folder / str(step), cause)
    what = "no checkpoint" if source.is_dir() else "no such folder"
    raise ValueError(f"checkpoint: '{source}': {what}; give a folder that `xgenmm train` wrote and saved into.")


def progress_of(checkpoint: Path) -> Progress:
    """What a run had done at a checkpoint."""
    progress = ocp.JsonCheckpointHandler().restore(checkpoint / "progress", args=ocp.args.JsonRestore())
    return Progress(**{**progress, "data": State(*progress["data"])})


def param_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters in a checkpoint's `params` folder; no array is read."""
    metadata = ocp.PyTreeCheckpointHandler().metadata(folder)
    tree = getattr(metadata, "tree", metadata)
    return {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def check_params(folder: Path, abstract: Params) -> None:
    """Raises ValueError where the checkpoint does not hold every parameter at the expected shape."""
    have = param_shapes(folder)
    parts = set(abstract)
    have = {name: shape for name, shape in have.items() if name.split("/")[0] in parts}
    expected = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    problems = differences(have, expected)
    if problems:
        more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        lacks = ", or draw what it lacks (initialize.fresh)" if expected.keys() - have.keys() else ""
        raise SizeError(
            f"checkpoint: '{folder.parent}' is of another size than the model: {', '.join(problems[:2])}{more}; use "
            f"the model of the config.json beside it, or another checkpoint{lacks}."
        )


def differences(have: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What keeps two sets of named shapes from being the same, a phrase each: misshapen, missing, spare."""
    both = sorted(expected.keys() & have.keys())
    return [
        *(
            f"{name} has {_shape(have[name])} for {_shape(expected[name])}"
            for name in both
            if have[name] != expected[name]
        ),
        *(f"{name} is missing" for name in sorted(expected.keys() - have.keys())),
        *(f"{name} is spare" for name in sorted(have.keys() - expected.keys())),
    ]


def _tells_damage(error: Exception) -> bool:
    """Whether an error of reading may come of what the files hold: not of memory, the device or the file system."""
    is_other = isinstance(error, MemoryError | OSError | jax.errors.JaxRuntimeError)
    return not is_other or isinstance(error, FileNotFoundError)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _by_layer(leaf: jax.Array) -> ocp.SaveArgs:
    """Large stacked leaves are stored a layer a chunk, so that export reads them a layer at a time."""
    is_stacked = leaf.ndim > 1 and leaf.nbytes > CHUNK_BYTES
    return ocp.SaveArgs(shard_axes=(0,)) if is_stacked else ocp.SaveArgs()


def restore_tree(folder: Path, abstract: Any) -> Any:
    """All hosts call this; where replicas lie on hosts of their own, those of one read for all."""

    def read(abstract: Any) -> Any:
        return _restore_here(folder, abstract)

    mesh = replica_restore.replicated_mesh(abstract)
    return read(abstract) if mesh is None else replica_restore.restore(read, abstract, mesh)


def _restore_here(folder: Path, abstract: Any) -> Any:
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    return ocp.PyTreeCheckpointHandler().restore(
        folder, args=ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=True)
    )


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by path: optax's NamedTuples, empty states and cut-out subtrees need no place in the file."""
    return {path_name(path).replace("/", "."): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unnamed(named: Mapping[str, Any], like: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: named[path_name(path).replace("/", ".")], like)
