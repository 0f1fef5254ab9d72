"""TPU slices by name, as libtpu's compiler knows them; no TPU is needed."""

from dataclasses import dataclass
import importlib.util
import math
import re

import jax
from jax.experimental import topologies

from xgenmm_jax.hardware import CHIPS, Chip

SHAPES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}
"""How many sides a slice of each chip has."""
EXAMPLES = "v5e:16x16, v6e:4x4, v4:4x4x4 or v5p:4x4x8"


@dataclass(frozen=True)
class Topology:
    """Slices of TPU chips, one device a chip."""

    name: str
    slices: int
    chip: Chip
    devices: tuple[jax.Device, ...]
    """Of all slices."""


def find_topology(name: str, slices: int = 1) -> Topology:
    """The devices of `slices` slices of a topology such as "v5e:16x16". Needs JAX_PLATFORMS=cpu where no TPU is.

    Raises ValueError for a name or shape that does not exist, and where libtpu is missing.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if not match or match[1] not in SHAPES:
        raise ValueError(f"--topology: got '{name}', wanted a chip ({', '.join(SHAPES)}) and a shape: {EXAMPLES}.")
    if slices < 1:
        raise ValueError(f"--slices: got {slices}, wanted 1 or more.")
    kind, sides = match[1], [int(side) for side in match[2].split("x")]
    if len(sides) != SHAPES[kind]:
        raise ValueError(f"--topology: got '{name}', wanted {SHAPES[kind]} sides for {kind}: {EXAMPLES}.")
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "plan: the TPU compiler is missing; `pip install xgenmm_jax[plan]` installs it (libtpu: Linux on x86-64, "
            "no TPU needed)."
        )
    options = {"num_slices": slices} if slices > 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # a chip's two cores as one device, as JAX has it on v4
    if math.prod(sides) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ").rstrip(".")
        raise ValueError(f"--topology: got '{name}', which libtpu refuses ({reason}); wanted {EXAMPLES}.") from error
    return Topology(name, slices, CHIPS[kind], tuple(devices))
