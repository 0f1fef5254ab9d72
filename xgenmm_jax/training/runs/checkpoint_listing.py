"""When the files of a checkpoint are summed and listed, while orbax writes it in the background."""

from collections.abc import Callable
import logging

import jax
import orbax.checkpoint as ocp

from xgenmm_jax.paths import Path
from xgenmm_jax.training.runs import checkpoint_files

LOG = logging.getLogger(__name__)


class Listing:
    """Has each host sum what it wrote, and host 0 list it all before the checkpoint appears.

    is_urgent: set it to have no more files read for their checksums.
    """

    def __init__(self):
        self.is_urgent = False

    def options(self, unfinished: Callable[[], list[Path]]) -> ocp.AsyncOptions:
        """Those of the checkpointer. unfinished: the folder that is being written, on any host."""

        def meet(*, key: str, timeout_ms: int) -> None:
            # Every host comes here when its own files are written, and waits for the others.
            if "write_complete" in key:
                self._sum(unfinished())
            ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

        def complete() -> None:
            # Called on host 0 alone, when the hosts' files are joined and the checkpoint has not appeared yet.
            for folder in unfinished():
                checkpoint_files.write_list(folder, lambda: self.is_urgent)

        return ocp.AsyncOptions(post_finalization_callback=complete, barrier_sync_fn=meet)

    def _sum(self, folders: list[Path]) -> None:
        """What one host cannot sum, host 0 reads."""
        for folder in folders:
            try:
                checkpoint_files.write_sums(folder, jax.process_index(), lambda: self.is_urgent)
            except OSError as error:
                LOG.warning("checkpoint: host %d has summed nothing in '%s' (%s)", jax.process_index(), folder, error)
