"""Our side: the training step that `train` runs, on batches that are on the device already."""

from collections.abc import Sequence
import time
from typing import Any

import jax

from benchmarks.machine import resident_peak
from xgenmm_jax.batch import Batch
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.optimizer import learning_rates
from xgenmm_jax.training.runs.initialize import initialize_params
from xgenmm_jax.training.runs.starting import new_state
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import make_mesh, put_rows, row_sharding


class OurTraining:
    """One device. The batches are taken in turns."""

    def __init__(self, config: TrainConfig, batches: Sequence[Batch]):
        self.config = config
        self.mesh = make_mesh(config.mesh, jax.devices()[:1])
        program = assemble(config, self.mesh)
        self.step, self.trainable, self.optimizer = program.step, program.trainable, program.optimizer
        with jax.set_mesh(self.mesh):
            params = initialize_params(
                config.initialize, program.init, config.seed, program.abstract.params, config.model
            )
            self.state = new_state(program, params)
            self.rows = [put_rows(batch, row_sharding(self.mesh)) for batch in batches]
        self.rates = learning_rates(config.optimizer, config.steps)
        self.losses: list[float] = []
        self.taken = 0

    def run(self, steps: int) -> float:
        """Seconds a step."""
        losses = []
        jax.block_until_ready((self.state, self.rows))
        start = time.perf_counter()
        with jax.set_mesh(self.mesh):
            for _ in range(steps):
                rows = self.rows[self.taken % len(self.rows)]
                rate = self.rates[min(self.taken, len(self.rates) - 1)]
                self.state, metrics = self.step(self.state, None, rows, rate)
                losses.append(metrics["loss"])
                self.taken += 1
        jax.block_until_ready(self.state)
        seconds = (time.perf_counter() - start) / steps
        self.losses.extend(map(float, losses))
        return seconds

    def info(self) -> dict[str, Any]:
        """peak_bytes: of the device, or of this process on a CPU, compiler included."""
        stats = jax.devices()[0].memory_stats() or {}
        return {
            "version": f"jax {jax.__version__}",
            "losses": self.losses,
            "peak_bytes": stats.get("peak_bytes_in_use") or resident_peak(),
        }
