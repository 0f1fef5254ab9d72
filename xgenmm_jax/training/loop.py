"""The only training loop: every stage, DPO, the vision tower and the language model run through it."""

from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import dataclass

import jax

from xgenmm_jax import appending
from xgenmm_jax.data.index.indexing import check_ready
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.paths import Path
from xgenmm_jax.training import device_memory
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.evaluating import Evaluator, PeriodicEvaluation, evaluate
from xgenmm_jax.training.goodput import Goodput, in_words
from xgenmm_jax.training.held_out import HeldOutLoss
from xgenmm_jax.training.hosts import compilations
from xgenmm_jax.training.hosts.distributed import anyone, ending_together, on_first_host
from xgenmm_jax.training.hosts.signals import Signals
from xgenmm_jax.training.hosts.watchdog import OPENING, Watchdog
from xgenmm_jax.training.metrics import MetricsLog, ProgressBar
from xgenmm_jax.training.mixture import MixtureShares
from xgenmm_jax.training.objectives.base import Objective, Params
from xgenmm_jax.training.optimizer import learning_rates
from xgenmm_jax.training.profiling import Profiler
from xgenmm_jax.training.progress import StepTracker
from xgenmm_jax.training.runs import checkpoint_files, starting
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress
from xgenmm_jax.training.runs.run_lock import RunLock
from xgenmm_jax.training.runs.saving import NonFiniteLossError as NonFiniteLossError
from xgenmm_jax.training.runs.saving import SaveSchedule, save, saving_first
from xgenmm_jax.training.runs.skipped import SkippedLog
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import check_rows, host_share, make_mesh, put_rows, row_sharding
from xgenmm_jax.training.spikes import Spikes
from xgenmm_jax.training.throughput import Throughput

IN_FLIGHT = 2
"""Steps that are dispatched and not finished. With fewer the device waits for the host, with more batches pile up."""


@dataclass(frozen=True)
class RunResult:
    """How a call of `train` ended.

    signal: the number of the signal that ended it; the same call continues. None: it reached its last step.
    """

    folder: Path
    step: int
    params: Params
    progress: Progress
    signal: int | None = None


def train(config: TrainConfig, folder: Path, devices: Sequence[jax.Device] | None = None) -> RunResult:
    """Runs `config` in `folder` to its last step; continues from the newest checkpoint there, bit for bit.

    The folder gets config.json, commit, tokenizer.model, started_with.json, metrics.jsonl, tensorboard/ and
    checkpoints/, DPO's reference/, and where there is something to say spikes.jsonl, skipped.jsonl, profile/ and
    heartbeats/; of several hosts compilation_cache/. On SIGTERM or SIGINT the state is saved and the result names the
    signal; SIGUSR1 asks for a profile.
    devices: all by default. With several hosts every one calls this with the same config and a folder that all see; the
    first holds it alone (`run_lock.py`).

    Raises:
        ValueError: another process is at work in the folder, it holds a run of another config or of data or weights
            that were others, a size does not fit, a file is missing.
        DeviceMemoryError: a device's memory does not hold the run; with what to do.
        NonFiniteLossError: with the step, the batch's samples and what to do; the state before that step is saved.
        Exception: whatever the data raise in the middle of a run; alone, the host saves the steps before it first.
    """
    checkpoint_files.check_place(folder, "run folder")
    lock = RunLock(folder)
    try:
        on_first_host(lock.acquire)
        with device_memory.explained_for(config):
            return _train(config, folder, devices, lock)
    finally:
        lock.release()


def _train(config: TrainConfig, folder: Path, devices: Sequence[jax.Device] | None, lock: RunLock) -> RunResult:
    # ---------------------------------------------------------------- what is trained, on what
    goodput = Goodput()
    program = assemble(config, make_mesh(config.mesh, devices))
    mesh = program.mesh
    rates = learning_rates(config.optimizer, config.steps)
    existing = starting.inspect(config, folder)
    held_out = HeldOutLoss(config, program) if config.held_out.every_steps else None
    evaluators: list[Evaluator] = [] if held_out is None else [held_out]
    if config.evaluate_every:
        evaluators.append(PeriodicEvaluation(config, mesh))

    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        stack.callback(appending.send_all)
        signals = stack.enter_context(Signals())
        watchdog = stack.enter_context(Watchdog(folder, config.watchdog_seconds, on_doing=goodput.at))

        # ------------------------------------------------------------ data and weights of a new run
        # Before anything is written: neither a mistyped path nor data that give no batch leave a run behind.
        batches = None
        if existing.is_new:
            watchdog.at(1, OPENING)
            with ending_together(watchdog, lock.release):
                batches = _open(config, mesh, State(), stack, held_out)
                anyone(False)  # every host has its own before one writes
            watchdog.at(1, "starting")
        compilations.share(folder)
        params = None
        if existing.needs_weights(config):
            params = starting.initial_params(config, folder, existing, program)
            if not existing.has_saved:
                params = _prepared(config, mesh, params)

        # ------------------------------------------------------------ the run folder, the state, the logs
        starting.make_folder(config, folder, existing)
        profiler = stack.enter_context(Profiler(config.profile, folder, signals.profile))
        policy = config.checkpoint
        checkpoints = stack.enter_context(Checkpoints(folder, policy.keep, policy.keep_every, config.lora))
        stack.enter_context(ending_together(watchdog, lock.release))
        stack.enter_context(device_memory.explained_for(config))  # before one of several hosts ends with the error
        state, reference, progress = starting.first_state(config, folder, existing, program, checkpoints, params)
        del params
        first_step = int(state.step)
        starting.tell_parts(config, program)
        has_lost = jax.process_index() == 0 and goodput.go_on(folder, first_step, progress.seconds)
        log = stack.enter_context(contextlib.closing(MetricsLog(folder, first_step)))
        bar = stack.enter_context(ProgressBar(config.name, first_step, config.steps))
        if has_lost:
            log.write(goodput.row(first_step))  # what was lost is known no more when its rows are dropped
        if batches is None and first_step < config.steps:
            config = starting.going_on(config, folder, existing, progress.data)
            watchdog.at(first_step + 1, OPENING)
            batches = _open(config, mesh, progress.data, stack, held_out)
        throughput = Throughput(config, mesh.devices.flatten().tolist())
        tracker = StepTracker(config, log, bar, Spikes(folder, first_step), throughput, progress, host_share(mesh)[1])
        schedule, skipped = SaveSchedule(policy, config.log_every), SkippedLog(folder, first_step)
        shares = MixtureShares(progress.seen)

        # ------------------------------------------------------------ the steps
        for step in range(first_step + 1, config.steps + 1):
            profiler.before(step)
            # The devices still compute the steps before this one, while the host reads the batch and sends it.
            watchdog.at(step, "reading rows")
            with saving_first(step, state, tracker, checkpoints, watchdog, folder):
                rows, sample_ids, data_after = next(batches)
            if tracker.is_computing:
                goodput.hide_reading()
            skipped.add(step, getattr(sample_ids, "skipped", ()))
            shares.add(getattr(sample_ids, "seen", {}))
            counts, flops = config.objective.count(rows), throughput.flops(rows)
            watchdog.at(step, "starting the step")
            rows = put_rows(rows, row_sharding(mesh))
            state, metrics = program.step(state, reference, rows, rates[step - 1])
            data_figures = {**skipped.figures, **shares.figures}
            tracker.submit(step, metrics, sample_ids, counts, flops, data_after, data_figures, shares.counts)
            watchdog.at(step, "waiting for the devices")
            tracker.drain(IN_FLIGHT)
            profiler.after(step, lambda: tracker.drain(0))

            # -------------------------------------------------------- evaluating, saving and stopping
            lock.check()
            for evaluator in evaluators:
                if evaluator.is_due(step):
                    tracker.drain(0)
                    with saving_first(step, state, tracker, checkpoints, watchdog, folder):
                        evaluate(evaluator, step, state, reference, tracker, log, bar, signals, watchdog)
            stop = signals.received(step)
            if schedule.is_due(step) or stop or step == config.steps or tracker.is_unhealthy:
                tracker.drain(0)
                watchdog.at(step, "saving")
                save(state, tracker, checkpoints, folder, is_urgent=stop is not None)
                watchdog.at(step, "saving")  # the save before is written; a wait below is for this one alone
                schedule.saved()
                if not stop and step < config.steps:
                    log.write(goodput.row(step))
            if stop:
                checkpoints.wait()
                log.write(goodput.row(step))
                return RunResult(folder, step, state.params, tracker.progress, stop)
        checkpoints.wait()
        if first_step < config.steps:
            row = goodput.row(config.steps)
            log.write(row)
            if jax.process_index() == 0:
                bar.show_line(in_words(row))
    return RunResult(folder, config.steps, state.params, tracker.progress)


def _open(
    config: TrainConfig,
    mesh: jax.sharding.Mesh,
    state: State,
    stack: contextlib.ExitStack,
    held_out: HeldOutLoss | None = None,
) -> Iterator[tuple]:
    """This host's batches from a data state on, closed with `stack`; the first is made here, and held-out rows planned.

    Raises ValueError where the data give no batch, or one that the mesh does not take.
    """
    host, hosts = host_share(mesh)
    if jax.process_count() > 1 and isinstance(config.data, DataConfig):
        # Of several hosts none makes an index: they would do the same work at the same time.
        check_ready(config.data, config.seed, config.steps)
    if held_out is not None:
        held_out.open(stack)
    opened = config.objective.batches(config.model, config.data, config.seed, state, host, hosts)
    batches = stack.enter_context(contextlib.closing(opened))
    first = next(batches)
    check_rows(mesh, len(jax.tree.leaves(first[0])[0]) * hosts, config.accumulation)
    return _with_first(first, batches)


def _prepared(config: TrainConfig, mesh: jax.sharding.Mesh, params: Params) -> Params:
    """The parameters as the objective makes them of the run's first batches, which are read once more for it."""
    objective = config.objective
    if type(objective).prepare is Objective.prepare:
        return params
    opened = objective.batches(config.model, config.data, config.seed, State(), *host_share(mesh))
    with contextlib.closing(opened):
        return objective.prepare(config.model, params, (put_rows(rows, row_sharding(mesh)) for rows, _, _ in opened))


def _with_first(first: tuple, batches: Iterator[tuple]) -> Iterator[tuple]:
    yield first
    del first  # pixels of a whole batch
    yield from batches
