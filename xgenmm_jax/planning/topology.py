"""Slices of TPUs and nodes of GPUs by name, for the estimate and, where there is one, for the compiler."""

from collections.abc import Sequence
from dataclasses import dataclass
import importlib.util
import math
import re

import jax
from jax.experimental import topologies

from xgenmm_jax.hardware import CHIPS, Chip, chip_of

SHAPES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}
"""How many sides a slice of each TPU has."""
FLAT = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)}
"""Sides of the slices of v5e and v6e by their number of chips, which alone says the slice: v5e:8 is v5e:2x4."""
GPUS = ("h100", "h200")
NODE = 8
"""GPUs that NVLink joins; several nodes are slices of the name."""
EXAMPLES = "v5e:16x16, v5e:8, v6e:4x4, v4:4x4x4, v5p:4x4x8, tpu7x:4x4x4, h100:8 or h200, 2xv5e:16x16 for two slices"


@dataclass(frozen=True)
class NamedDevice:
    """A device of which nothing is known but what its chip can do."""

    device_kind: str


@dataclass(frozen=True)
class Topology:
    """Slices of chips, or nodes of GPUs."""

    name: str
    """Of one slice: "v5e:16x16", "h200:8"."""
    slices: int
    chip: Chip
    devices: tuple[jax.Device | NamedDevice, ...]
    """Of all slices. NamedDevices can be counted, not compiled for."""

    @property
    def label(self) -> str:
        """As `--for` takes it: "2xv5e:16x16"."""
        return f"{self.slices}x{self.name}" if self.slices > 1 else self.name

    @property
    def is_named(self) -> bool:
        """Whether no compiler knows the devices."""
        return any(isinstance(device, NamedDevice) for device in self.devices)


def named_topology(name: str, slices: int | None = None, option: str = "--topology") -> Topology:
    """The chips of "v5e:16x16", "2xv5e:16x16", "h200" or "h100:8", for the estimate; no compiler is asked.

    slices: of the shape; not beside a name that says it. option: that a user gave the name with.

    Raises ValueError for a name that is none.
    """
    slices, kind, sides = _parsed(name, slices, option)
    chip = CHIPS[kind]
    count = math.prod(sides) * chip.devices * slices
    shape = "x".join(map(str, sides))
    of_one = kind if kind in GPUS and sides == [1] else f"{kind}:{shape}"
    return Topology(of_one, slices, chip, (NamedDevice(chip.kinds[0]),) * count)


def find_topology(name: str, slices: int | None = None, option: str = "--topology") -> Topology:
    """As `named_topology`, with the devices that a compiler knows. Needs JAX_PLATFORMS=cpu where no TPU is.

    TPUs are libtpu's, which needs none of them. GPUs are those of this machine, and stay named where it lacks them:
    their compiler asks the GPU itself.

    Raises ValueError for a name or shape that does not exist, and where libtpu is missing.
    """
    topology = named_topology(name, slices, option)
    kind, _, shape = topology.name.partition(":")
    if kind in GPUS:
        return _attached(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "plan: the TPU compiler is missing; `pip install xgenmm_jax[plan]` installs it (libtpu: Linux on x86-64, "
            "no TPU needed)."
        )
    options = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # a chip's two cores as one device, as JAX has it on v4
    if set(shape.split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ").rstrip(".")
        raise ValueError(f"{option}: got '{name}', which libtpu refuses ({reason}); wanted {EXAMPLES}.") from error
    return Topology(topology.name, topology.slices, topology.chip, tuple(devices))


def topology_of(devices: Sequence[jax.Device]) -> Topology | None:
    """What devices that are there are called; None for CPUs and for what `hardware.py` lacks."""
    chip = chip_of(devices[0])
    if chip is None or any(chip_of(device) != chip for device in devices):
        return None
    kind = next(name for name, known in CHIPS.items() if known == chip)
    numbers = sorted({getattr(device, "slice_index", 0) or 0 for device in devices})
    first = [device for device in devices if (getattr(device, "slice_index", 0) or 0) == numbers[0]]
    sides = [len(first)] if kind in GPUS else _sides(first, SHAPES[kind])
    shape = "x".join(map(str, sides))
    name = kind if kind in GPUS and sides == [1] else f"{kind}:{shape}"
    return Topology(name, len(numbers), chip, tuple(devices))


def _sides(devices: Sequence[jax.Device], count: int) -> list[int]:
    """Of a slice, as topologies are written: ascending, v5p:4x4x8, and ones last, v5p:2x2x1."""
    of_axes = zip(*(device.coords for device in devices), strict=True)
    spans = [max(coordinates) - min(coordinates) + 1 for coordinates in of_axes]
    return sorted(spans[:count], key=lambda side: (side == 1, side))


def _parsed(name: str, slices: int | None, option: str) -> tuple[int, str, list[int]]:
    match = re.fullmatch(r"(?:(\d+)x)?([a-z]\w*)(?::(\d+(?:x\d+)*))?", name)
    kind = match[2] if match else ""
    if kind not in (*SHAPES, *GPUS):
        chips = ", ".join([*SHAPES, *GPUS])
        raise ValueError(f"{option}: got '{name}', wanted a chip ({chips}) and a shape: {EXAMPLES}.")
    if match[1] is not None and slices is not None:
        raise ValueError(f"--slices: got {slices} beside '{name}', which says them; leave --slices away.")
    slices = int(match[1] or 1) if slices is None else slices
    if slices < 1:
        raise ValueError(f"--slices: got {slices}, wanted 1 or more.")
    if kind in GPUS:
        sides = [int(side) for side in (match[3] or "1").split("x")]
        if len(sides) > 1 or not 1 <= sides[0] <= NODE:
            raise ValueError(
                f"{option}: got '{name}', wanted 1 to {NODE} GPUs that NVLink joins, {kind}:{NODE}; several nodes are "
                f"2x{kind}:{NODE}."
            )
        return slices, kind, sides
    sides = [int(side) for side in (match[3] or "").split("x") if side]
    if SHAPES[kind] == 2 and len(sides) == 1:
        if sides[0] not in FLAT:
            raise ValueError(
                f"{option}: got '{name}', and a slice of {kind} has {', '.join(map(str, FLAT))} chips; wanted one of "
                f"these, or its sides: {EXAMPLES}."
            )
        sides = list(FLAT[sides[0]])
    if len(sides) != SHAPES[kind] or 0 in sides:
        raise ValueError(f"{option}: got '{name}', wanted {SHAPES[kind]} sides for {kind}: {EXAMPLES}.")
    return slices, kind, sides


def _attached(topology: Topology) -> Topology:
    """With this machine's GPUs where they are these, and enough."""
    try:
        devices = [device for device in jax.devices() if chip_of(device) == topology.chip]
    except RuntimeError:
        devices = []
    count = len(topology.devices)
    if topology.slices > 1 or len(devices) < count:
        return topology
    return Topology(topology.name, 1, topology.chip, tuple(devices[:count]))
