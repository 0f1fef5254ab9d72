"""The held-out loss: the objective's own, of rows that no step trains on, after some steps of a run."""

from collections.abc import Callable
import contextlib
import logging
import math
import time

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32
import numpy as np

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.held_out import HeldOutRows
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.metrics import HELD_OUT, Row
from xgenmm_jax.training.objectives.base import Items, Objective, Params, Rows
from xgenmm_jax.training.optimizer import reference_of
from xgenmm_jax.training.setup import Program
from xgenmm_jax.training.sharding import axis_rules, host_share, put_rows, replicated, row_sharding
from xgenmm_jax.training.step import shardings_of

LOG = logging.getLogger(__name__)

Sums = dict[str, Float32[Array, " sources"]]
"""Of each figure of `Items`, and of their weight under WEIGHT, the sum by source."""
WEIGHT = "weight"


class HeldOutLoss:
    """When it is due, and what it gives; `open` plans its rows.

    All hosts take part: each reads its own rows, and the sums are of all. The state is read where it lies, no gradient
    is taken and nothing is drawn, so losses and parameters of a run are the same with it and without.

    Raises ValueError where the objective has no held-out loss; nothing is opened.
    """

    def __init__(self, config: TrainConfig, program: Program):
        objective, setting = config.objective, config.held_out
        if type(objective).items is Objective.items or not isinstance(config.data, DataConfig):
            raise ValueError(
                f"held_out.every_steps: got {setting.every_steps} for the objective {type(objective).__name__}, which "
                "has no held-out loss (NextToken and DPO have); give 0 (--held-out.every-steps 0)."
            )
        self._config, self._program, self._setting = config, program, setting
        self._host = host_share(program.mesh)
        self._rows: HeldOutRows | None = None
        self._has_told = False  # a loss

    def open(self, stack: contextlib.ExitStack) -> None:
        """Plans the rows, closed with `stack`. Raises ValueError where a source sets nothing aside or does not open."""
        config, setting = self._config, self._setting
        # As many rows at once as a micro-batch has, so that it needs no more memory than a step.
        rows = config.data.batch_rows // config.accumulation
        may_measure = jax.process_count() == 1
        opened = HeldOutRows(config.data, setting.mixture, setting.samples, rows, may_measure)
        self._rows = stack.enter_context(contextlib.closing(opened))
        self._sums = make_sums(config, self._program, len(opened.names))

    def is_due(self, step: int) -> bool:
        return step % self._setting.every_steps == 0 or step == self._config.steps

    def run(self, step: int, params: Params, reference: Params | None, check: Callable[[], None]) -> Row:
        """A row of metrics after a step: loss in total and by source, and the seconds that it took.

        check: called before each batch; what it raises ends the evaluation.

        Raises SourceError, on all hosts, where at the first evaluation no item can be had; later this is logged, as
        data that went away do not end a run that goes on without them.
        """
        rows = self._rows
        assert rows is not None
        started = time.monotonic()
        sharding = row_sharding(self._program.mesh)
        total: dict[str, np.ndarray] = {}
        for one in rows.batches(*self._host):
            check()
            sums = self._sums(params, reference, put_rows(one.batch, sharding), put_rows(one.source_of, sharding))
            # float32 within a batch, float64 over batches.
            for name, values in sums.items():
                total[name] = total.get(name, 0.0) + np.asarray(values, np.float64)
        figures = figures_of(total, rows.names, self._config.objective.has_perplexity)
        # Of all hosts together: one that cannot read its own samples is not to end while the others go on.
        if not figures["items"]:
            if not self._has_told:
                raise SourceError(rows.nothing())
            LOG.warning("%s", rows.nothing())
        self._has_told = True
        figures["seconds"] = time.monotonic() - started
        return {"step": step, **{f"{HELD_OUT}/{name}": value for name, value in figures.items()}}


def make_sums(
    config: TrainConfig, program: Program, sources: int
) -> Callable[[Params, Params | None, Rows, Int32[Array, "B segments"]], Sums]:
    """(params, reference, rows, source of each segment) -> sums of the objective's items, the same on every host.

    Call it under `jax.set_mesh`. Compiled once, as all batches have the same shapes.
    """
    mesh, objective = program.mesh, config.objective

    def sums(params, reference, rows, source_of):
        with axis_rules():
            items = objective.items(config.model, params, reference, rows, config.freeze)
            return sums_by_source(items, source_of, sources)

    params_shardings = shardings_of(program.abstract).params
    reference_shardings = reference_of(params_shardings, program.trainable) if config.keeps_reference else None
    rows_sharding = row_sharding(mesh)
    return jax.jit(
        sums,
        in_shardings=(params_shardings, reference_shardings, rows_sharding, rows_sharding),
        out_shardings=replicated(mesh),
    )


def sums_by_source(items: Items, source_of: Int32[Array, "B segments"], sources: int) -> Sums:
    """Items with a weight belong to segments that `source_of` has; float32."""
    segment = jnp.minimum(items.segment_ids, source_of.shape[1] - 1)
    source = jnp.take_along_axis(source_of, segment, axis=1)

    def by_source(values):
        # Masked sums, not a scatter: each device adds its own rows.
        return jnp.stack([jnp.sum(jnp.where(source == number, values, 0.0)) for number in range(sources)])

    return {name: by_source(values) for name, values in {**items.values, WEIGHT: items.weight}.items()}


def figures_of(sums: dict[str, np.ndarray], names: tuple[str, ...], has_perplexity: bool) -> dict[str, float]:
    """Means over all items, if there are any, then over those of each source as NAME/..., of several that have some."""
    weights = sums[WEIGHT]

    def means(chosen: slice | int) -> dict[str, float]:
        weight = max(float(weights[chosen].sum()), 1.0)
        figures = {name: float(values[chosen].sum()) / weight for name, values in sums.items() if name != WEIGHT}
        if has_perplexity:
            figures["perplexity"] = math.exp(min(figures["loss"], 700.0))  # above it overflows
        return figures

    items = float(weights.sum())
    figures = {**(means(slice(None)) if items else {}), "items": items}
    if len(names) > 1:
        for number, name in enumerate(names):
            if weights[number]:
                figures |= {f"{name}/{figure}": value for figure, value in means(number).items()}
    return figures
