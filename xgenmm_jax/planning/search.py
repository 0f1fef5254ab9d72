"""The fastest settings of a run that fit: mesh split, rematerialisation, rows that a chip works on at a time.

The global batch stays the experiment's where it divides over the row shards; else it grows until it does, for as many
positions: fewer steps, and fewer of warmup. Candidates are tried from the best bound downwards, by estimates of traffic
and memory; each compilation corrects the estimate of memory for all others, those before it too, so that few are
needed. Nothing is believed to fit but what compiled.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
import typing
from typing import NamedTuple

from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.remat import OFFLOADED_NAMES, Remat
from xgenmm_jax.planning import bounds, estimates
from xgenmm_jax.planning.plan import Plan, make_plan
from xgenmm_jax.planning.topology import Topology
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.sharding import MeshConfig

REMATS = tuple(remat for remat in typing.get_args(Remat) if remat not in OFFLOADED_NAMES)
"""Without those that use the host's memory: the bound does not know what that way costs."""
TENSORS = (1, 2, 4, 8)
REPLICAS = (1, 2, 4, 8)
"""Of a slice. More than one where widths divide by fewer chips only: SigLIP's 1152 by 128 and not by 256."""
LEAST_FSDP = 8
MOST_COMPILATIONS = 8


class Candidate(NamedTuple):
    """Settings before they are compiled."""

    config: TrainConfig
    row_seconds: float
    """Of a row at the bound, with the traffic that no compiler can do without."""
    bytes: float
    """Memory of a chip."""


def search(
    name: str,
    config: TrainConfig,
    topology: Topology,
    options: Mapping[str, str],
    utilisation: float,
    tokens: float,
    show: Callable[[str], None],
) -> Plan:
    """The plan of the best bound among those that fit; where none does, the one that needs least.

    It ends when none that is untried should both fit and be better, or after MOST_COMPILATIONS. show: is told of each
    compilation, in one line. The other arguments are `make_plan`'s.
    """
    untried, plans = ranked(config, topology), []
    correction, best = 1.0, math.inf  # of the estimates of memory; the fewest seconds a row among those that fit
    while len(plans) < MOST_COMPILATIONS:
        # The first of the ranking that should fit and be faster; where none should fit, the smallest is tried.
        hopeful = (c for c in untried if c.bytes * correction <= topology.chip.hbm_bytes and c.row_seconds < best)
        candidate = next(hopeful, None)
        if candidate is None and not plans:
            candidate = min(untried, key=lambda c: c.bytes)
        if candidate is None:
            break
        # Compile it; the memory that it needs corrects the estimates of all others.
        untried.remove(candidate)
        plan = make_plan(name, candidate.config, topology, options, utilisation, tokens)
        plans.append(plan)
        if plan.fits:
            best = min(best, _row_seconds(plan))
        used = plan.memory.peak if plan.fits else plan.failure.needed_bytes
        correction = (used or 2 * topology.chip.hbm_bytes) / candidate.bytes
        show(_line(plan))
    fitting = [plan for plan in plans if plan.fits]
    if fitting:
        return min(fitting, key=_row_seconds)
    return min(plans, key=lambda plan: plan.failure.needed_bytes or math.inf)


def ranked(config: TrainConfig, topology: Topology) -> list[Candidate]:
    """All candidates, whether they should fit or not, the best bound first.

    Raises ValueError for a model that is no VLM.
    """
    if not isinstance(config.model, VLMConfig):
        raise ValueError(f"--search: got a {type(config.model).__name__}; only stages of the whole model are searched.")
    parameters = estimates.parameters_of(config)
    costs: dict[MeshConfig, estimates.Held] = {}
    ranking = []
    for tried in candidates(config, topology):
        if tried.mesh not in costs:
            costs[tried.mesh] = estimates.held(tried, parameters)
        held, rows = costs[tried.mesh], tried.data.batch_rows
        traffic = estimates.estimated_traffic(tried, held, topology.slices)
        times = bounds.times(tried, dataclasses.asdict(tried.mesh), held.trained, traffic, topology)
        ranking.append(Candidate(tried, times.bound / rows, estimates.estimated_bytes(tried, held)))
    # Of equal bounds the simpler: fewer chips to a row, fewer micro-batches; then what needs least memory.
    ranking.sort(key=lambda c: (c.row_seconds, c.config.mesh.tensor, c.config.accumulation, c.bytes))
    return ranking


def candidates(config: TrainConfig, topology: Topology) -> Iterator[TrainConfig]:
    """Every mesh split that the model's heads allow, every policy, every number of rows at a time."""
    decoder, chips = config.model.decoder, len(topology.devices)
    per_slice = chips // topology.slices
    for tensor in TENSORS:
        if decoder.kv_heads % tensor or per_slice % tensor:
            continue
        shards = chips // tensor
        sized = with_rows(config, -(-config.data.batch_rows // shards) * shards)
        for replicas in REPLICAS:
            fsdp, rest = divmod(per_slice // tensor, replicas)
            if rest or replicas > 1 and fsdp < LEAST_FSDP:
                continue
            mesh = MeshConfig(replica=topology.slices * replicas, fsdp=fsdp, tensor=tensor)
            for remat in REMATS:
                model = dataclasses.replace(config.model, decoder=dataclasses.replace(decoder, remat=remat))
                for accumulation in bounds.divisors(sized.data.batch_rows // shards):
                    yield dataclasses.replace(sized, mesh=mesh, model=model, accumulation=accumulation)


def with_rows(config: TrainConfig, rows: int) -> TrainConfig:
    """The run with another batch, for as many positions: in more or fewer steps, as many of them in share warmup."""
    if rows == config.data.batch_rows:
        return config
    steps = max(1, round(config.steps * config.data.batch_rows / rows))
    warmup = config.optimizer.warmup_steps * steps // config.steps
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=warmup)
    data = dataclasses.replace(config.data, batch_rows=rows)
    return dataclasses.replace(config, data=data, steps=steps, optimizer=optimizer)


def settings(config: TrainConfig) -> list[str]:
    """The overrides that give a run of the search, as typed behind `xgenmm train EXPERIMENT`."""
    mesh = config.mesh
    return [
        f"--mesh.replica={mesh.replica}",
        f"--mesh.fsdp={mesh.fsdp}",
        f"--mesh.tensor={mesh.tensor}",
        f"--data.batch-rows={config.data.batch_rows}",
        f"--steps={config.steps}",
        f"--optimizer.warmup-steps={config.optimizer.warmup_steps}",
        f"--accumulation={config.accumulation}",
        f"--model.decoder.remat={config.model.decoder.remat}",
    ]


def _row_seconds(plan: Plan) -> float:
    return plan.times.bound / plan.config.data.batch_rows


def _line(plan: Plan) -> str:
    decoder = plan.config.model.decoder
    tried = f"{plan.mesh_words}, remat {decoder.remat}, {plan.rows_per_chip:g} rows a chip at a time"
    if not plan.fits:
        return f"{tried}: does not fit"
    return f"{tried}: {plan.bound.tokens_per_second / len(plan.topology.devices):,.0f} tokens/s a chip at most"
