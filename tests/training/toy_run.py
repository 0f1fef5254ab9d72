"""A stand-in for model and data whose step compiles in no time: the loop's own behaviour is tested with it."""

from collections.abc import Iterator
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import time
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from xgenmm_jax.data.order import State
from xgenmm_jax.training.config import CheckpointConfig, TrainConfig
from xgenmm_jax.training.objective import Objective, Size, Sum
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.sharding import MeshConfig


class ToyRows(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class ToyData:
    rows: int = 16


@dataclass(frozen=True)
class ToyModel:
    width: int = 8


@dataclass
class Events:
    """What happens to a run from outside, by step; not part of its config.

    In other processes the variable XGENMM_TOY_EVENTS says it: "host=1,kill_at=8".
    """

    terminate_at: int = 0
    poison_at: int = 0
    kill_at: int = 0
    hang_at: int = 0
    host: int = 0
    leap_at: int = 0
    fail_at: int = 0
    slow_from: int = 0
    """From this step on each takes half a second."""


def events_of(text: str) -> Events:
    return Events(**{name: int(value) for name, value in (pair.split("=") for pair in text.split(",") if pair)})


EVENTS = events_of(os.environ.get("XGENMM_TOY_EVENTS", ""))


@dataclass(frozen=True)
class ToyLoss:
    """Weighted least squares."""

    reference: bool = False

    def objective(self, model: Any, data: Any) -> Objective:
        def init(key):
            def boxed(key, shape, names):
                return nn.LogicallyPartitioned(jax.random.normal(key, shape), names)

            keys = jax.random.split(key)
            return {
                "vision": {"kernel": boxed(keys[0], (4, model.width), (None, "embed"))},
                "decoder": {"kernel": boxed(keys[1], (model.width,), ("embed",)), "bias": boxed(key, (), ())},
            }

        def loss(params, reference, rows, key):
            hidden = jnp.tanh(rows.x @ params["vision"]["kernel"])
            error = hidden @ params["decoder"]["kernel"] + params["decoder"]["bias"] - rows.y
            noise = jax.random.uniform(key, ()) * 0.01
            total = jnp.sum(rows.weight * error**2) * (1 + noise)
            if reference is not None:
                total += jnp.sum((params["decoder"]["kernel"] - reference["decoder"]["kernel"]) ** 2)
            return Sum(total, jnp.sum(rows.weight)), {"error": Sum(jnp.sum(jnp.abs(error)), jnp.sum(rows.weight))}

        return Objective(init, loss, lambda *place: toy_batches(data, *place), toy_size, self.reference)


def toy_batches(data: ToyData, seed: int, state: State, host: int, hosts: int) -> Iterator[tuple]:
    step = state[0]
    share = data.rows // hosts
    own = slice(host * share, (host + 1) * share)
    while True:
        step += 1
        rng = np.random.default_rng((seed, step))
        x = rng.normal(size=(data.rows, 4)).astype(np.float32)
        weight = rng.integers(1, 5, data.rows).astype(np.float32)
        if step == EVENTS.poison_at:
            x[3, 2] = np.nan
        if step == EVENTS.leap_at:
            x[2] *= 1000
        if host == EVENTS.host:
            happen(step)
        ids = [f"toy/{step}/{row}" for row in range(data.rows)]
        yield ToyRows(x[own], x.sum(axis=1)[own], weight[own]), ids[own], State(step, 0)


def happen(step: int) -> None:
    """Whatever is to happen to this process before the step's rows are there."""
    if step == EVENTS.terminate_at:
        os.kill(os.getpid(), signal.SIGTERM)
    if step in (EVENTS.kill_at, EVENTS.hang_at):
        wait_for_checkpoint()
    if step == EVENTS.kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    if step == EVENTS.fail_at:
        raise ValueError("data: no file 'x.json'")
    if step == EVENTS.hang_at:
        time.sleep(3600)
    if 0 < EVENTS.slow_from <= step:
        time.sleep(0.5)


def wait_for_checkpoint(patience_s: float = 120.0) -> None:
    """Until the run in ./run has saved something: the steps of this model take no time, saving does."""
    until = time.monotonic() + patience_s
    while not any(path.name.isdigit() for path in Path("run/checkpoints").glob("*")):
        if time.monotonic() > until:
            raise TimeoutError("the run has saved nothing")
        time.sleep(0.02)


def toy_size(rows: ToyRows) -> Size:
    return Size(len(rows.x), int(rows.weight.sum()), 4 * len(rows.x))


def config(steps: int = 12) -> TrainConfig:
    return TrainConfig(
        name="toy",
        model=ToyModel(),
        data=ToyData(),
        loss=ToyLoss(),
        steps=steps,
        optimizer=OptimizerConfig(peak_lr=0.05, warmup_steps=2),
        mesh=MeshConfig(fsdp=-1),
        log_every=4,
        checkpoint=CheckpointConfig(every_steps=5, every_seconds=0.0),
    )
