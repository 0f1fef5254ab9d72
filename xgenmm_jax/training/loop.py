"""The only training loop: every stage, DPO, the vision tower and the language model run through it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import dataclass
from pathlib import Path
import time
from typing import NamedTuple

import jax
from jaxtyping import Array

from xgenmm_jax.data.rows.order import State
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.hosts.distributed import anyone, ending_together, on_first_host
from xgenmm_jax.training.hosts.signals import Signals
from xgenmm_jax.training.hosts.watchdog import Watchdog
from xgenmm_jax.training.metrics import MetricsLog, ProgressBar
from xgenmm_jax.training.objectives.base import Counts, Params
from xgenmm_jax.training.optimizer import learning_rates
from xgenmm_jax.training.profiling import Profiler
from xgenmm_jax.training.runs import starting
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress
from xgenmm_jax.training.runs.run_lock import RunLock
from xgenmm_jax.training.runs.saving import NonFiniteLossError as NonFiniteLossError
from xgenmm_jax.training.runs.saving import Saves, save, saving_first
from xgenmm_jax.training.runs.skipped import SkippedLog
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import check_rows, host_share, make_mesh, put_rows, row_sharding
from xgenmm_jax.training.spikes import FIGURES, Spikes
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


Hook = Callable[[TrainConfig, Path, Params], None]
"""Called with config, run folder and final parameters when a run has reached its last step."""


def train(
    config: TrainConfig, folder: Path, hooks: Sequence[Hook] = (), devices: Sequence[jax.Device] | None = None
) -> RunResult:
    """Runs `config` in `folder` to its last step; continues from the newest checkpoint there, bit for bit.

    The folder gets config.json, commit, tokenizer.model, started_with.json, metrics.jsonl, tensorboard/ and
    checkpoints/, DPO's reference/, and where there is something to say spikes.jsonl, skipped.jsonl, profile/ and
    heartbeats/. On SIGTERM or SIGINT the state is saved and the result names the signal; SIGUSR1 asks for a profile.
    devices: all by default. With several hosts every one calls this with the same config and a folder that all see; the
    first holds it alone (`run_lock.py`).

    Raises:
        ValueError: another process is at work in the folder, it holds a run of another config or of data or weights
            that were others, a size does not fit, a file is missing.
        NonFiniteLossError: with the step, the batch's samples and what to do; the state before that step is saved.
        Exception: whatever the data raise in the middle of a run; alone, the host saves the steps before it first.
    """
    lock = RunLock(folder)
    try:
        on_first_host(lock.acquire)
        return _train(config, folder, hooks, devices, lock)
    finally:
        lock.release()


def _train(
    config: TrainConfig, folder: Path, hooks: Sequence[Hook], devices: Sequence[jax.Device] | None, lock: RunLock
) -> RunResult:
    # ---------------------------------------------------------------- what is trained, and where
    program = assemble(config, make_mesh(config.mesh, devices))
    mesh = program.mesh
    rates = learning_rates(config.optimizer, config.steps)
    found = starting.look(config, folder)

    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        signals = stack.enter_context(Signals())
        watchdog = stack.enter_context(Watchdog(folder, config.watchdog_seconds))
        # Before anything is written: neither a mistyped path nor data that give no batch leave a run behind.
        batches = None
        if found.is_new:
            watchdog.at(1, "reading rows")
            with ending_together(watchdog, lock.release):
                batches = _open(config, mesh, State(), stack)
                anyone(False)  # every host has its own before one writes
        params = None
        if found.needs_weights(config):
            params = starting.initial_params(config, folder, found, program)
        starting.make_folder(config, folder, found)
        profiler = stack.enter_context(Profiler(config.profile, folder, signals.profile))
        policy = config.checkpoint
        checkpoints = stack.enter_context(Checkpoints(folder, policy.keep, policy.keep_every))
        stack.enter_context(ending_together(watchdog, lock.release))
        state, reference, progress = starting.first_state(config, folder, found, program, checkpoints, params)
        del params
        first_step = int(state.step)
        log = stack.enter_context(contextlib.closing(MetricsLog(folder, first_step)))
        bar = stack.enter_context(ProgressBar(config.name, first_step, config.steps))
        if batches is None and first_step < config.steps:
            watchdog.at(first_step + 1, "reading rows")
            batches = _open(config, mesh, progress.data, stack)

        # ------------------------------------------------------------ the steps
        throughput = Throughput(config, mesh.devices.flatten().tolist())
        watch = _Watch(config, log, bar, Spikes(folder, first_step), throughput, progress, host_share(mesh)[1])
        saves, skipped = Saves(policy, config.log_every), SkippedLog(folder, first_step)
        for step in range(first_step + 1, config.steps + 1):
            profiler.before(step)
            # The device still works on the steps before this one, while the host makes the batch and sends it.
            watchdog.at(step, "reading rows")
            with saving_first(step, state, watch, checkpoints, watchdog, folder):
                rows, sample_ids, data_after = next(batches)
            skipped.add(step, getattr(sample_ids, "skipped", ()))
            counts, flops = config.objective.count(rows), throughput.flops(rows)
            watchdog.at(step, "starting the step")
            rows = put_rows(rows, row_sharding(mesh))
            state, metrics = program.step(state, reference, rows, rates[step - 1])
            watch.launched(step, metrics, sample_ids, counts, flops, data_after, skipped.figures)
            watchdog.at(step, "waiting for the devices")
            watch.land(IN_FLIGHT)
            profiler.after(step, lambda: watch.land(0))

            # -------------------------------------------------------- saving and stopping
            lock.check()
            stop = signals.received(step)
            if saves.are_due(step) or stop or step == config.steps or watch.is_unhealthy:
                watch.land(0)
                watchdog.at(step, "saving")
                save(state, watch, checkpoints, folder, is_urgent=stop is not None)
                watchdog.at(step, "saving")  # the save before is written; a wait below is for this one alone
                saves.saved()
            if stop:
                checkpoints.wait()
                return RunResult(folder, step, state.params, watch.progress, stop)
        checkpoints.wait()

    # ---------------------------------------------------------------- what follows a whole run
    with jax.set_mesh(mesh):
        for hook in hooks:
            hook(config, folder, state.params)
    return RunResult(folder, config.steps, state.params, watch.progress)


def _open(
    config: TrainConfig, mesh: jax.sharding.Mesh, state: State, stack: contextlib.ExitStack
) -> Iterator[tuple]:
    """This host's batches from a data state on, closed with `stack`; the first is made here.

    Raises ValueError where the data give no batch, or one that the mesh does not take.
    """
    host, hosts = host_share(mesh)
    made = config.objective.batches(config.model, config.data, config.seed, state, host, hosts)
    batches = stack.enter_context(contextlib.closing(made))
    first = next(batches)
    check_rows(mesh, len(jax.tree.leaves(first[0])[0]) * hosts, config.accumulation)
    return _with_first(first, batches)


def _with_first(first: tuple, batches: Iterator[tuple]) -> Iterator[tuple]:
    yield first
    del first  # pixels of a whole batch
    yield from batches


class _Flight(NamedTuple):
    """A dispatched step, and what the host must remember until the step is known to be healthy."""

    step: int
    metrics: dict[str, Array]
    sample_ids: list[str]
    fill: float
    flops: float
    skipped: dict[str, int]
    before: Progress
    after: Progress


class _Watch:
    """Reads the figures of steps that are done, so that no step waits for the host.

    Whether a step was healthy is read with the figures that are logged; until then its samples are remembered.
    """

    def __init__(
        self,
        config: TrainConfig,
        log: MetricsLog,
        bar: ProgressBar,
        spikes: Spikes,
        throughput: Throughput,
        progress: Progress,
        hosts: int,
    ):
        self.progress = progress
        self.is_unhealthy = False
        self._config, self._log, self._bar, self._spikes, self._hosts = config, log, bar, spikes, hosts
        self._throughput = throughput
        self._flying: deque[_Flight] = deque()
        self._unsure: deque[_Flight] = deque()
        self._began = time.monotonic() - progress.seconds
        self._shown_at, self._shown_tokens = time.monotonic(), progress.tokens
        self._flops_since = 0.0

    def launched(
        self,
        step: int,
        metrics: dict[str, Array],
        sample_ids: list[str],
        counts: Counts,
        flops: float,
        data_after: State,
        skipped: dict[str, int],
    ) -> None:
        """A step was dispatched. skipped: figures of what the run has left out until now."""
        hosts, before = self._hosts, self.progress  # a host counts its own rows; the others' are about as full
        self.progress = Progress(
            data=data_after,
            samples=before.samples + counts.samples * hosts,
            tokens=before.tokens + counts.tokens * hosts,
            seconds=time.monotonic() - self._began,
        )
        fill = counts.tokens / counts.positions
        flight = _Flight(step, metrics, sample_ids, fill, flops * hosts, skipped, before, self.progress)
        self._flying.append(flight)
        self._unsure.append(flight)

    def land(self, at_most: int) -> None:
        """Waits until at most so many steps are under way; logs what is to be logged."""
        while len(self._flying) > at_most:
            flight = self._flying.popleft()
            self._flops_since += flight.flops
            jax.block_until_ready(flight.metrics["loss"])
            self._bar.advance(flight.step)
            if flight.step % self._config.log_every == 0 or flight.step == self._config.steps:
                self._show(flight)

    def _show(self, flight: _Flight) -> None:
        figures = {name: float(value) for name, value in jax.device_get(flight.metrics).items()}
        if not figures.pop("healthy"):
            self.is_unhealthy = True
            return
        self._settle(flight.step)
        now, tokens = time.monotonic(), flight.after.tokens
        new_tokens, seconds = tokens - self._shown_tokens, now - self._shown_at
        row = {
            "step": flight.step,
            **figures,
            "fill": flight.fill,
            "samples": flight.after.samples,
            **flight.skipped,
            "tokens": tokens,
            "tokens_per_second": new_tokens / seconds,
            **self._throughput.figures(new_tokens, self._flops_since, seconds),
            "seconds": now - self._began,
        }
        self._shown_at, self._shown_tokens, self._flops_since = now, tokens, 0.0
        self._log.write(row)
        self._bar.show(row)

    def _settle(self, step: int) -> None:
        """Steps up to this one are healthy. Looks for spikes among them and forgets their samples."""
        done = [self._unsure.popleft() for _ in range(len(self._unsure)) if self._unsure[0].step <= step]
        judged = jax.device_get([{name: flight.metrics[name] for name in FIGURES} for flight in done])
        for flight, values in zip(done, judged, strict=True):
            self._spikes.judge(flight.step, {name: float(value) for name, value in values.items()}, flight.sample_ids)

    def before(self, step: int) -> Progress:
        """What the run had done before a step that is not known to be healthy."""
        return self._of(step).before

    def message(self, step: int, folder: Path) -> str:
        """What to tell of an unhealthy step."""
        flight = self._of(step)
        loss, grad_norm = (float(flight.metrics[name]) for name in ("loss", "grad_norm"))
        return (
            f"loss: {loss} with gradient norm {grad_norm} at step {step} of {self._config.steps}; its batch holds the "
            f"samples {', '.join(flight.sample_ids)}. The state before it is saved in '{folder}': look at these "
            "samples, or start anew with a lower optimizer.peak_lr, a longer optimizer.warmup_steps or another seed."
        )

    def _of(self, step: int) -> _Flight:
        return next(flight for flight in self._unsure if flight.step == step)
