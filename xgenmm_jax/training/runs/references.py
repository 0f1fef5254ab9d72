"""What a run measures itself against, in its own folder: the values that its trained parameters started with.

Written once, before the first step, as the parameters of a checkpoint are: whole or not at all, with a list of its
files and their checksums, for any mesh and number of hosts. The run that they came from may train on, or go.
"""

import logging

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
from jax.experimental import multihost_utils
import orbax.checkpoint as ocp

from xgenmm_jax import files
from xgenmm_jax.paths import Path
from xgenmm_jax.training.hosts.distributed import anyone
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.runs import checkpoint_files
from xgenmm_jax.training.runs.checkpoint_listing import Listing
from xgenmm_jax.training.runs.checkpoints import params_args, restore_params

LOG = logging.getLogger(__name__)

FOLDER = "reference"


def is_whole(run: Path) -> bool:
    """Whether a run has its reference with the bytes that were written. All hosts ask, and share the reading."""
    folder = run / FOLDER
    if not anyone(folder.is_dir() and checkpoint_files.has_appeared(folder)):
        return False
    cause = checkpoint_files.damage(folder, ("params",), (jax.process_index(), jax.process_count()))
    if cause is not None:
        LOG.warning("reference: '%s' is damaged (%s); it is read anew from where the run began", folder, cause)
    return not anyone(cause is not None)


def save(run: Path, reference: Params) -> None:
    """Writes it; what is there is replaced. All hosts call this. reference: None at leaves that are frozen."""
    folder = run.absolute() / FOLDER
    if jax.process_index() == 0:
        for left in (folder, *checkpoint_files.being_written(folder)):
            files.delete_tree(left)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("reference")

    options = Listing().options(lambda: checkpoint_files.being_written(folder))
    handler = ocp.CompositeCheckpointHandler(params=ocp.PyTreeCheckpointHandler())
    with ocp.AsyncCheckpointer(handler, async_options=options) as checkpointer:
        checkpointer.save(folder, args=ocp.args.Composite(params=params_args(_without_frozen(reference))))
        checkpointer.wait_until_finished()


def restore(run: Path, abstract: Params) -> Params:
    """abstract: shapes and shardings, None at leaves that are frozen, which the result has there, too."""
    restored = flatten_dict(restore_params(run / FOLDER, _without_frozen(abstract)), sep="/")
    return unflatten_dict({name: restored.get(name) for name in flatten_dict(abstract, sep="/")}, sep="/")


def _without_frozen(tree: Params) -> Params:
    leaves = flatten_dict(tree, sep="/")
    return unflatten_dict({name: leaf for name, leaf in leaves.items() if leaf is not None}, sep="/")
