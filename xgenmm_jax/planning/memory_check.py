"""What the estimate of memory says of a run on the devices that it is about to use, before anything else is done."""

from collections.abc import Sequence
import dataclasses

import jax

from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.planning.estimates import fit
from xgenmm_jax.planning.presets import Preset, preset
from xgenmm_jax.planning.topology import Topology, topology_of
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.sharding import MeshConfig, mesh_sizes

IGNORE = "--ignore-estimate"


def check_count(chosen: Preset, config: TrainConfig, devices: Sequence[jax.Device]) -> None:
    """Raises ValueError where `--for` names other devices than there are, and no option gave the mesh another size."""
    topology = chosen.topology
    if config.mesh == chosen.config.mesh and len(devices) != len(topology.devices):
        raise ValueError(
            f"--for: {topology.label} has {len(topology.devices)} devices, but here are {len(devices)} "
            f"({devices[0].device_kind}); name what is here, or leave --for away (`xgenmm plan FILE --for "
            f"{topology.label}` needs no devices)."
        )


def sentence(
    config: TrainConfig, base: TrainConfig, chosen: Preset | None, devices: Sequence[jax.Device], is_forced: bool
) -> str | None:
    """Whether the run should fit, and by how much; None on CPUs, for models and data that are not planned, and where
    the settings of `--for`, which say it themselves, were changed by nothing that takes memory.

    base: the experiment, before the command line. chosen: of `--for`. is_forced: go on in any case.

    Raises ValueError where it cannot fit and is not forced to try, and where mesh and devices do not fit each other.
    """
    topology = topology_of(devices)
    if topology is None or not isinstance(config.model, VLMConfig) or not isinstance(config.data, DataConfig):
        return None
    available = _available(topology)
    if chosen is not None and _taking_memory(config) == _taking_memory(chosen.config):
        if chosen.cell is not None or chosen.fit.available == available:
            return None
    sizes = mesh_sizes(config.mesh, len(devices), topology.slices)
    memory = fit(dataclasses.replace(config, mesh=MeshConfig(**sizes)), available)
    said = f"by the estimate a step takes {memory.words} on {topology.label}"
    if memory.is_likely:
        return f"{said}: it should fit"
    remedy = _remedy(base, chosen, topology)
    if memory.is_impossible and not is_forced:
        raise ValueError(f"memory: {said}: it does not fit; {remedy}, or {IGNORE} to try all the same.")
    return f"{said}: it {'does' if memory.is_impossible else 'may'} not fit; {remedy}"


def _taking_memory(config: TrainConfig) -> tuple:
    return config.model, config.data.row, config.data.batch_rows, config.mesh, config.accumulation, config.freeze


def _available(topology: Topology) -> float:
    """Bytes that a program may use of a device. A GPU says how much JAX reserved; a TPU's compiler has a limit."""
    reserved = None
    if topology.devices[0].platform == "gpu":
        local = next(device for device in topology.devices if device.process_index == jax.process_index())
        reserved = (local.memory_stats() or {}).get("bytes_limit")
    return float(reserved or topology.chip.hbm_bytes)


def _remedy(base: TrainConfig, chosen: Preset | None, topology: Topology) -> str:
    if chosen is not None and chosen.topology.label == topology.label:
        return "leave away what you changed of the settings of --for, or add micro-batches (--accumulation)"
    try:
        fitting = preset(base, topology)
    except ValueError:
        return "no settings are known that fit; take more devices"
    return f"add --for {topology.label}, whose settings {'fit' if fitting.cell else 'should fit'} ({fitting.source})"
