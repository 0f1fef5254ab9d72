"""`--for TOPOLOGY`: mesh, micro-batches, rematerialisation and rows with which a stage fits certain chips.

Where the very stage was compiled for the topology (compiled_cells.csv), its settings; for others the fastest that the
estimate lets fit, even where it is as much too low as it ever was. A stage is known by what its memory depends on, not
by its name: the model, the length of a row and its crops, what trains. The global batch stays the experiment's where
it divides over the chips; else it grows until it does, in fewer steps.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import NamedTuple

from xgenmm_jax.hardware import GIB
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.planning.bounds import divisors
from xgenmm_jax.planning.compiled_cells import Cell, compiled_cells
from xgenmm_jax.planning.estimates import Fit
from xgenmm_jax.planning.search import ranked, with_rows
from xgenmm_jax.planning.topology import GPUS, Topology, named_topology
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.sharding import MeshConfig

NONE = "none"
"""The topology that leaves an experiment's own settings."""
MODELS = {"4b": sizes.B4, "14b": sizes.B14}
PREFERENCES = ("dpo",)
"""Stages with a reference, of which the language model alone trains; of all others everything but the tower."""
CHUNK = 1024
"""Positions that go through the head at once in the compiled cells; more take more memory."""


class Preset(NamedTuple):
    """A run's settings for a topology, and where they are from."""

    config: TrainConfig
    topology: Topology
    cell: Cell | None
    """The compiled one; None: the estimate's."""
    fit: Fit | None
    """By the estimate, where nothing was compiled."""

    @property
    def source(self) -> str:
        """Half a sentence: how far the settings can be relied on."""
        cell = self.cell
        if cell is None:
            return f"by the estimate, not compiled: {self.fit.words}"
        same = cell.crops == self.config.data.row.crops
        crops = "" if same else f", there with {cell.crops} crops a row, here {self.config.data.row.crops}"
        return (
            f"compiled as {cell.size} {cell.stage}: {cell.peak_gib:.2f} GiB of {cell.hbm_gib:.2f} GiB a device{crops}"
        )


def chosen(config: TrainConfig, name: str | None) -> Preset | None:
    """What `--for NAME` asks for; None where it is not given, or is NONE. Raises ValueError as `preset` does."""
    return None if name in (None, NONE) else preset(config, named_topology(name, option="--for"))


def preset(config: TrainConfig, topology: Topology) -> Preset:
    """Settings of an experiment for chips that need not be there.

    Raises ValueError where there are none: the model is none that is planned, or nothing should fit.
    """
    if not isinstance(config.model, VLMConfig):
        raise ValueError(
            f"--for: got a {type(config.model).__name__} ('{config.name}'); settings are known for stages of the whole "
            f"model alone. Leave --for away (a launch script: --for {NONE}) and give --mesh.fsdp, --accumulation and "
            "--data.batch-rows yourself, where the defaults do not suit."
        )
    cell = cell_of(config, topology)
    if cell is not None:
        return Preset(_as_compiled(config, cell), topology, cell, None)
    return estimated(config, topology)


def cell_of(config: TrainConfig, topology: Topology) -> Cell | None:
    """The compiled cell of the topology whose memory a config does not exceed; of several the one most like it."""
    size = next((name for name, model in MODELS.items() if _same_model(model, config.model)), None)
    if size is None or getattr(config.objective, "chunk", None) not in range(1, CHUNK + 1):
        return None
    row, frozen = config.data.row, set(config.freeze)
    cells = [
        cell
        for cell in compiled_cells()
        if (cell.size, cell.topology, cell.slices) == (size, topology.name, topology.slices)
        and cell.length == row.length
        and cell.crops >= row.crops
        and (cell.stage in PREFERENCES) == config.objective.needs_reference
        and frozen >= ({"vision", "connector"} if cell.stage in PREFERENCES else {"vision"})
    ]
    return min(cells, key=lambda cell: cell.crops, default=None)


def _same_model(one: VLMConfig, other: VLMConfig) -> bool:
    return one == dataclasses.replace(other, decoder=dataclasses.replace(other.decoder, remat=one.decoder.remat))


def _as_compiled(config: TrainConfig, cell: Cell) -> TrainConfig:
    """A cell's settings with the config's own batch, as many rows at a time as in the cell at most."""
    shards = cell.replica * cell.fsdp
    rows = -(-config.data.batch_rows // shards) * shards
    at_a_time = cell.rows // cell.accumulation // shards
    most = max(number for number in divisors(rows // shards) if number <= at_a_time)
    decoder = dataclasses.replace(config.model.decoder, remat=cell.remat)
    return dataclasses.replace(
        with_rows(config, rows),
        model=dataclasses.replace(config.model, decoder=decoder),
        mesh=MeshConfig(cell.replica, cell.fsdp, cell.tensor),
        accumulation=rows // shards // most,
    )


def estimated(config: TrainConfig, topology: Topology) -> Preset:
    """The fastest settings that the estimate lets fit. Raises ValueError where none does."""
    available = topology.chip.hbm_bytes
    candidates = ranked(config, topology)
    for candidate in candidates:
        if (fit := Fit(candidate.bytes, available)).is_likely:
            return Preset(candidate.config, topology, None, fit)
    least = min((candidate.bytes for candidate in candidates), default=math.inf)
    is_gpu = topology.name.partition(":")[0] in GPUS
    search = "" if is_gpu else f", or look with `xgenmm plan FILE --topology {topology.label} --search`"
    raise ValueError(
        f"--for: no settings are known with which '{config.name}' fits {topology.label}: by the estimate it takes "
        f"{least / GIB:.1f} GiB at the least, of {available / GIB:.1f} GiB a device; take more chips{search}."
    )


def lines(chosen: Preset, before: TrainConfig) -> Sequence[str]:
    """What a user is told: the settings, what they rest on, and a batch that is another than the experiment's."""
    config, mesh = chosen.config, chosen.config.mesh
    sentences = [
        f"for {chosen.topology.label}: mesh replica {mesh.replica} x fsdp {mesh.fsdp} x tensor {mesh.tensor}, "
        f"accumulation {config.accumulation}, decoder's remat {config.model.decoder.remat}, {config.data.batch_rows} "
        f"rows a step; {chosen.source}"
    ]
    if config.data.batch_rows != before.data.batch_rows:
        sentences.append(
            f"the batch is {config.data.batch_rows} rows instead of the experiment's {before.data.batch_rows}, too few "
            f"for these chips: {config.steps} steps instead of {before.steps}, {config.optimizer.warmup_steps} of "
            f"warmup instead of {before.optimizer.warmup_steps}; look at the learning rate again"
        )
    return sentences
