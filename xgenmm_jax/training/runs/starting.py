"""Where a run starts from: its newest checkpoint, or parameters of its own; and the reference that it keeps."""

import functools
import logging
from typing import NamedTuple

import jax
import rich.console

from xgenmm_jax import hub
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.rows.phases import Phase
from xgenmm_jax.models.lora import completed
from xgenmm_jax.paths import Path, user_path
from xgenmm_jax.training.config import Initialize, TrainConfig, check_rows
from xgenmm_jax.training.hosts.distributed import on_first_host
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.optimizer import reference_of
from xgenmm_jax.training.part_rates import part_rows, table
from xgenmm_jax.training.runs import adapters, mixture_changes, references, started_with
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress, saved_steps
from xgenmm_jax.training.runs.initialize import initialize_params
from xgenmm_jax.training.runs.run_folder import CONFIG_FILE, check_same, prepare
from xgenmm_jax.training.setup import Program
from xgenmm_jax.training.step import TrainState, init_state, shardings_of

LOG = logging.getLogger(__name__)


class ExistingRun(NamedTuple):
    """What a run folder held when the run was started in it."""

    is_new: bool
    has_saved: bool
    is_done: bool
    """The last step is saved: neither data nor weights are needed again."""
    has_reference: bool
    phases: tuple[Phase, ...]
    """Of its mixture; () where its data have none."""

    def needs_weights(self, config: TrainConfig) -> bool:
        """Whether the weights that the run began with are read; low-rank updates always stand beside them."""
        if config.lora is not None:
            return True
        return not self.has_saved or config.keeps_reference and not self.has_reference and not self.is_done


def inspect(config: TrainConfig, folder: Path) -> ExistingRun:
    """What the folder holds; nothing is written. All hosts call this.

    Raises ValueError where it is a run of another config or of other rows, or its data or weights are not those that
    it began with.
    """
    has_config, saved = check_same(config, folder), saved_steps(folder)
    existing = ExistingRun(
        is_new=not (has_config or saved),
        has_saved=bool(saved),
        is_done=bool(saved) and saved[0] >= config.steps,
        has_reference=bool(saved) and config.keeps_reference and references.is_whole(folder),
        phases=mixture_changes.phases_of_run(folder / CONFIG_FILE),
    )
    if has_config and not existing.is_done:
        check_rows(folder / CONFIG_FILE)
    if saved and not existing.is_done:
        on_first_host(lambda: started_with.compare(config, folder, existing.needs_weights(config)))
    return existing


def make_folder(config: TrainConfig, folder: Path, existing: ExistingRun) -> None:
    """The run folder with its files, on the first host while the others wait."""

    def keep() -> None:
        if not existing.is_done:
            started_with.keep(config, folder, existing.has_saved)

    on_first_host(lambda: prepare(config, folder, keep))


def going_on(config: TrainConfig, folder: Path, existing: ExistingRun, state: State) -> TrainConfig:
    """The config with which an existing run goes on from a state of its data, which its folder keeps from now on.

    Weights of the mixture may be others than before. All hosts call this.
    """
    check_rows(folder / CONFIG_FILE)  # again: the last step of a run that was done may be damaged
    before = existing.phases
    if not before:
        return config
    config = mixture_changes.with_phases(config, before, state)

    def keep() -> None:
        # config.json first: a source that it has and started_with.json lacks is added there at the next start.
        mixture_changes.keep(config, folder / CONFIG_FILE)
        names = started_with.add_sources(config, folder)
        if config.data.order_phases != before:
            LOG.warning("data: %s", mixture_changes.description(before, config.data.order_phases, names))

    on_first_host(keep)
    return config


def initial_params(
    config: TrainConfig, folder: Path, existing: ExistingRun, program: Program
) -> Params:
    """The parameters that the run begins, or began, with."""
    start = config.initialize
    if existing.has_saved:
        read_again = started_with.weights_of if config.lora is None else started_with.base_of
        start = read_again(config, folder)
    params = initialize_params(start, program.init, config.seed, program.abstract.params, config.model)
    # What a checkpoint holds is not begun with again, but for a reference that is lost.
    if config.initialize.adapter is None or existing.has_saved and not config.keeps_reference:
        return params
    adapter = hub.local_folder(config.initialize.adapter, "initialize.adapter", is_kept=True)
    if start.run is not None and start == Initialize(run=start.run, adapter=start.adapter):
        adapters.check_base(adapter, user_path(start.run, "initialize.run"))
    return adapters.begin_with(params, config, adapter)


def first_state(
    config: TrainConfig,
    folder: Path,
    existing: ExistingRun,
    program: Program,
    checkpoints: Checkpoints,
    params: Params | None,
) -> tuple[TrainState, Params | None, Progress]:
    """State, reference and progress: those of the newest whole checkpoint, or those of a new run.

    params: the initial ones, which the state takes over; None where a checkpoint promised to replace them.
    """
    restored = checkpoints.restore(program.abstract)  # of a run with updates no more than `lora.stored`
    wants_reference = config.keeps_reference and (restored is None or int(restored[0].step) < config.steps)
    has_reference = restored is not None and existing.has_reference
    if params is None and (restored is None or wants_reference and not has_reference):
        params = initial_params(config, folder, existing, program)
    reference = None
    if wants_reference and has_reference:
        reference = references.restore(folder, reference_of(program.abstract.params, program.trainable))
    elif wants_reference:
        # Copied, because the first step takes the policy's own buffers.
        reference = jax.tree.map(lambda leaf: leaf.copy(), reference_of(params, program.trainable))
        references.save(folder, reference)
    if restored is not None:
        state, progress = restored
        if config.lora is not None:
            state = state._replace(params=completed(params, state.params))
        return state, reference, progress
    return new_state(program, params), reference, Progress()


def tell_parts(config: TrainConfig, program: Program) -> None:
    """Prints which parts train, at which rates, on the first host."""
    if jax.process_index() == 0:
        rates = config.optimizer
        rows = part_rows(
            program.abstract.params, program.trainable, rates.parts, rates.peak_lr, rates.weight_decay
        )
        rich.console.Console(stderr=True).print(table(rows))


def new_state(program: Program, params: Params) -> TrainState:
    """A state at step 0, laid out over the program's mesh."""
    start = functools.partial(init_state, trainable=program.trainable, optimizer=program.optimizer)
    return jax.jit(start, out_shardings=shardings_of(program.abstract))(params)
