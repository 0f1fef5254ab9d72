"""The steps of a run that are dispatched: how many are in flight, what they gave, what is logged of them."""

from collections import deque
from collections.abc import Mapping
import time
from typing import NamedTuple

import jax
from jaxtyping import Array

from xgenmm_jax.data.rows.order import State
from xgenmm_jax.paths import Path
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.metrics import MetricsLog, ProgressBar
from xgenmm_jax.training.objectives.base import Counts
from xgenmm_jax.training.runs.checkpoints import Progress
from xgenmm_jax.training.spikes import FIGURES, Spikes
from xgenmm_jax.training.throughput import Throughput


class PendingStep(NamedTuple):
    """A dispatched step, and what the host must remember until the step is known to be healthy."""

    step: int
    metrics: dict[str, Array]
    """On the devices, perhaps not computed yet."""
    sample_ids: list[str]
    fill: float
    flops: float
    data_figures: dict[str, int | float]
    before: Progress
    after: Progress


class StepTracker:
    """Reads the metrics of finished steps, so that no step waits for the host.

    Whether a step was healthy (its loss and gradient finite) is read at logged steps, with the metrics; until then its
    samples are remembered, for the message of an unhealthy step and for spikes.

    progress: what the run has done, steps in flight included; at first, before this call. hosts: how many share the
    rows of a step.
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
        self._in_flight: deque[PendingStep] = deque()
        self._unjudged: deque[PendingStep] = deque()
        self._started_at = time.monotonic() - progress.seconds
        self._logged_at, self._logged_tokens = time.monotonic(), progress.tokens
        self._flops_since_log = 0.0

    def submit(
        self,
        step: int,
        metrics: dict[str, Array],
        sample_ids: list[str],
        counts: Counts,
        flops: float,
        data_after: State,
        data_figures: dict[str, int | float],
        seen: Mapping[str, tuple[int, int]],
    ) -> None:
        """After a dispatch.

        counts, flops: of this host's rows. data_figures: what the run left out so far, shares of its sources. seen:
        what these shares are of.
        """
        hosts, before = self._hosts, self.progress  # a host counts its own rows; the others' are about as full
        self.progress = Progress(
            data=data_after,
            samples=before.samples + counts.samples * hosts,
            tokens=before.tokens + counts.tokens * hosts,
            seconds=time.monotonic() - self._started_at,
            seen=seen,
        )
        fill = counts.tokens / counts.positions
        pending = PendingStep(step, metrics, sample_ids, fill, flops * hosts, data_figures, before, self.progress)
        self._in_flight.append(pending)
        self._unjudged.append(pending)

    def drain(self, at_most: int) -> None:
        """Waits until at most so many steps are in flight; logs those of the finished ones that are due."""
        while len(self._in_flight) > at_most:
            pending = self._in_flight.popleft()
            self._flops_since_log += pending.flops
            jax.block_until_ready(pending.metrics["loss"])
            self._bar.advance(pending.step)
            if pending.step % self._config.log_every == 0 or pending.step == self._config.steps:
                self._log_step(pending)

    @property
    def is_computing(self) -> bool:
        """Whether a dispatched step is not finished. Nothing waits for the answer."""
        return bool(self._in_flight) and not self._in_flight[-1].metrics["loss"].is_ready()

    def leave_out(self, seconds: float) -> None:
        """Time that went by between steps and is no part of their speed."""
        self._started_at += seconds
        self._logged_at += seconds

    def _log_step(self, pending: PendingStep) -> None:
        figures = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
        if not figures.pop("healthy"):
            self.is_unhealthy = True
            return
        self._judge_until(pending.step)
        # Speed over the time since the last logged step.
        now, tokens = time.monotonic(), pending.after.tokens
        new_tokens, seconds = tokens - self._logged_tokens, now - self._logged_at
        row = {
            "step": pending.step,
            **figures,
            "fill": pending.fill,
            "samples": pending.after.samples,
            **pending.data_figures,
            "tokens": tokens,
            "tokens_per_second": new_tokens / seconds,
            **self._throughput.figures(new_tokens, self._flops_since_log, seconds),
            "seconds": now - self._started_at,
        }
        self._logged_at, self._logged_tokens, self._flops_since_log = now, tokens, 0.0
        self._log.write(row)
        self._bar.show(row)

    def _judge_until(self, step: int) -> None:
        """Steps up to this one are healthy. Looks for spikes among them and forgets their samples."""
        healthy = [self._unjudged.popleft() for _ in range(len(self._unjudged)) if self._unjudged[0].step <= step]
        figures = jax.device_get([{name: pending.metrics[name] for name in FIGURES} for pending in healthy])
        for pending, values in zip(healthy, figures, strict=True):
            floats = {name: float(value) for name, value in values.items()}
            self._spikes.judge(pending.step, floats, pending.sample_ids)

    def before(self, step: int) -> Progress:
        """What the run had done before a step that is not known to be healthy."""
        return self._pending(step).before

    def unhealthy_message(self, step: int, folder: Path) -> str:
        """Figures and samples of an unhealthy step, and what to do."""
        pending = self._pending(step)
        loss, grad_norm = (float(pending.metrics[name]) for name in ("loss", "grad_norm"))
        return (
            f"loss: {loss} with gradient norm {grad_norm} at step {step} of {self._config.steps}; its batch holds the "
            f"samples {', '.join(pending.sample_ids)}. The state before it is saved in '{folder}': look at these "
            "samples, or start anew with a lower optimizer.peak_lr, a longer optimizer.warmup_steps or another seed."
        )

    def _pending(self, step: int) -> PendingStep:
        return next(pending for pending in self._unjudged if pending.step == step)
