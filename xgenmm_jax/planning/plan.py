"""A run on a topology: does it fit, what costs what, how fast can it be, how long does the stage take."""

from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
import functools
import math
import time
from typing import Any

from xgenmm_jax.hardware import GIB
from xgenmm_jax.planning import bounds, estimates
from xgenmm_jax.planning.bounds import Times, Work
from xgenmm_jax.planning.collectives import Traffic, traffic
from xgenmm_jax.planning.estimates import Fit
from xgenmm_jax.planning.program import (
    Memory,
    OutOfMemoryError,
    compile_step,
    installed,
    lower_step,
    memory_of,
    text_of,
)
from xgenmm_jax.planning.topology import Topology
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.sharding import RULES, MeshConfig, check_shards, make_mesh, mesh_sizes

DAY_S = 86400


@dataclass(frozen=True)
class Budget:
    """How long the stage takes. tokens: positions, padding included."""

    tokens: float
    tokens_per_second: float

    @property
    def days(self) -> float:
        return self.tokens / self.tokens_per_second / DAY_S


@dataclass(frozen=True)
class Plan:
    """What the compiler, or the estimate, and the arithmetic say of one run on one topology.

    Where it does not fit, or nothing was compiled, memory is None.
    """

    name: str
    topology: Topology
    mesh: Mapping[str, int]
    config: TrainConfig
    work: Work
    tokens: float
    """Of the stage."""
    utilisation: float
    """Of the chips' peak by model FLOPs, assumed."""
    compile_s: float
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The compiler's."""
    memory: Memory | None = None
    traffic: dict[str, Traffic] | None = None
    failure: OutOfMemoryError | None = None
    estimate: Fit | None = None
    """Where nothing was compiled; the traffic is what no program can do without."""

    @property
    def fits(self) -> bool:
        """Of an estimate: whether it may."""
        return self.memory is not None or self.estimate is not None and not self.estimate.is_impossible

    @property
    def mesh_words(self) -> str:
        """ "replica 2 x fsdp 128 x tensor 1"."""
        return " x ".join(f"{axis} {size}" for axis, size in self.mesh.items())

    @property
    def rows_per_chip(self) -> float:
        """Rows that a chip works on at a time; below 1 where the tensor axis shares a row."""
        shards = math.prod(self.mesh[axis] for axis in RULES["batch"]) * self.mesh["tensor"]
        return self.config.data.batch_rows / self.config.accumulation / shards

    @property
    def step_tokens(self) -> int:
        return self.config.data.batch_rows * self.config.data.row.length

    @functools.cached_property
    def times(self) -> Times:
        trained = estimates.trained_parameters(self.config, self.mesh)
        return bounds.times(self.config, self.mesh, trained, self.traffic or {}, self.topology)

    @property
    def bound(self) -> Budget:
        """All traffic hidden behind other work: what no program is faster than."""
        return self.at(self.times.bound)

    @property
    def exposed(self) -> Budget:
        """What the compiled program is not faster than: the traffic that it hides not takes its time alone."""
        return self.at(self.times.exposed_bound)

    @property
    def expected(self) -> Budget:
        """At the assumed utilisation, and no faster than the compiled program's bound."""
        return self.at(max(self.peak_seconds / self.utilisation, self.times.exposed_bound))

    @property
    def peak_seconds(self) -> float:
        """Of a step at an MFU of 1."""
        return self.work.model.total / (len(self.topology.devices) * self.topology.chip.peak_flops)

    def at(self, seconds: float) -> Budget:
        """The stage in steps of so many seconds."""
        return Budget(self.tokens, self.step_tokens / seconds)

    def utilisation_of(self, budget: Budget) -> float:
        """MFU at its speed."""
        return self.peak_seconds * budget.tokens_per_second / self.step_tokens

    @property
    def device_word(self) -> str:
        """What figures are of, where JAX shows a chip as several devices."""
        return "chip" if self.topology.chip.devices == 1 else "device"

    def chip_hours(self, budget: Budget) -> float:
        return budget.days * 24 * len(self.topology.devices) / self.topology.chip.devices

    @property
    def advice(self) -> str:
        """One sentence: what to change where it does not fit. Empty where it fits."""
        if self.estimate is not None and self.estimate.is_impossible:
            return f"does not fit by the estimate: {self.estimate.words}; {', or '.join(self._remedies())}."
        if self.failure is None:
            return ""
        needed, available = self.failure.needed_bytes, self.failure.available_bytes
        size = f"{needed / GIB:.2f} GiB of {available / GIB:.2f} GiB" if needed else str(self.failure).splitlines()[0]
        return f"does not fit: the step needs {size} a {self.device_word}; {', or '.join(self._remedies())}."

    def _remedies(self) -> list[str]:
        config, mesh = self.config, self.mesh
        remedies = []
        shards = math.prod(mesh[axis] for axis in RULES["batch"])
        rows = config.data.batch_rows // config.accumulation // shards
        if rows > 1:
            fewer = next(n for n in bounds.divisors(rows) if n > 1)
            remedies.append(f"take fewer rows at a time (--accumulation {config.accumulation * fewer})")
            remedies.append(f"fewer rows in all (--data.batch-rows {config.data.batch_rows // fewer})")
        if config.model.decoder.remat != "full":
            remedies.append("keep less for the backward pass (--model.decoder.remat full)")
        if mesh["replica"] > self.topology.slices:
            remedies.append(f"cut parameters further (--mesh.replica {self.topology.slices} --mesh.fsdp -1)")
        heads = config.model.decoder.kv_heads
        if 2 * mesh["tensor"] <= heads and heads % (2 * mesh["tensor"]) == 0 and mesh["fsdp"] % 2 == 0:
            remedies.append(f"share a row between chips (--mesh.tensor {2 * mesh['tensor']})")
        return remedies or ["shorter rows (--data.row.length), or chips with more memory"]


def make_plan(
    name: str,
    config: TrainConfig,
    topology: Topology,
    options: Mapping[str, str],
    utilisation: float,
    tokens: float,
) -> Plan:
    """Lowers and compiles the step.

    name: of the experiment. options: the compiler's. utilisation: share of the chips' peak, assumed. tokens: positions
    of the whole stage.

    Raises ValueError where mesh, batch and topology do not fit each other.
    """
    work, mesh = bounds.work(config), make_mesh(config.mesh, topology.devices)
    began = time.monotonic()
    lowered, arguments = lower_step(config, mesh)
    plan = Plan(name, topology, dict(mesh.shape), config, work, tokens, utilisation, 0.0, dict(options))
    try:
        compiled = compile_step(lowered, options)
    except OutOfMemoryError as error:
        return dataclasses.replace(plan, failure=error, compile_s=time.monotonic() - began)
    plan = dataclasses.replace(plan, compile_s=time.monotonic() - began)
    memory, available = memory_of(compiled, arguments), topology.chip.hbm_bytes
    if memory.peak > available:  # the compiler of GPUs leaves that to the run
        return dataclasses.replace(plan, failure=OutOfMemoryError.of(float(memory.peak), available))
    return dataclasses.replace(
        plan, memory=memory, traffic=traffic(text_of(compiled), len(topology.devices), topology.slices)
    )


def estimate_plan(name: str, config: TrainConfig, topology: Topology, utilisation: float, tokens: float) -> Plan:
    """The plan by the estimate of memory and traffic, at once and without a compiler. Arguments are `make_plan`'s.

    Raises ValueError as `make_plan` does.
    """
    sizes = mesh_sizes(config.mesh, len(topology.devices), topology.slices)
    check_shards(sizes, config.data.batch_rows, config.accumulation)
    sized = dataclasses.replace(config, mesh=MeshConfig(**sizes))
    costs = estimates.held(sized, estimates.parameters_of(config))
    memory = Fit(estimates.estimated_bytes(sized, costs), topology.chip.hbm_bytes)
    sent = estimates.estimated_traffic(sized, costs, topology.slices)
    work = bounds.work(config)
    return Plan(name, topology, sizes, config, work, tokens, utilisation, 0.0, traffic=sent, estimate=memory)


def to_json(plan: Plan) -> dict[str, Any]:
    """Everything that is printed, in bytes, FLOPs and seconds."""
    config, times = plan.config, plan.times
    report = {
        "experiment": plan.name,
        "topology": plan.topology.name,
        "slices": plan.topology.slices,
        "chips": len(plan.topology.devices) // plan.topology.chip.devices,
        "mesh": dict(plan.mesh),
        "rows": config.data.batch_rows,
        "accumulation": config.accumulation,
        "rows_per_chip": plan.rows_per_chip,
        "length": config.data.row.length,
        "crops": config.data.row.crops,
        "remat": config.model.decoder.remat,
        "fits": plan.fits,
        "advice": plan.advice,
        "compiler_options": dict(plan.options),
        "flops": {"model": plan.work.model._asdict(), "hardware": plan.work.hardware._asdict()},
        "compile_s": plan.compile_s,
        "versions": {name: installed(name) for name in ("jax", "libtpu")},
    }
    estimate = plan.estimate
    if estimate is not None:
        report["estimate"] = {"bytes": estimate.estimate, "least": estimate.least, "most": estimate.most}
    # A plan that does not fit has no program to measure: how much is missing is all there is.
    if plan.failure is not None:
        return report | {"needed_bytes": plan.failure.needed_bytes, "available_bytes": plan.failure.available_bytes}
    return report | {
        "memory": ({} if plan.memory is None else plan.memory._asdict()) | {"available": plan.topology.chip.hbm_bytes},
        "collectives": {kind: sent._asdict() for kind, sent in plan.traffic.items()},
        "seconds": times._asdict() | {"bound": times.bound, "exposed_bound": times.exposed_bound},
        "bound_by": times.slowest,
        "utilisation": plan.utilisation,
        "bound_utilisation": plan.utilisation_of(plan.bound),
        "exposed_utilisation": plan.utilisation_of(plan.exposed),
        "tokens": plan.tokens,
        "bound": _budget(plan, plan.bound),
        "exposed": _budget(plan, plan.exposed),
        "expected": _budget(plan, plan.expected),
    }


def _budget(plan: Plan, budget: Budget) -> dict[str, float]:
    return {
        "tokens_per_second": budget.tokens_per_second,
        "tokens_per_second_per_chip": budget.tokens_per_second / len(plan.topology.devices),
        "days": budget.days,
        "chip_hours": plan.chip_hours(budget),
    }
