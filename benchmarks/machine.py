"""The machine that a benchmark runs on: device, memory, and the rates that bound it."""

from dataclasses import dataclass
import os
from pathlib import Path
import time

from benchmarks.rounds import Side
from xgenmm_jax import files
from xgenmm_jax.cli.main import keep_compilations

PEAK_BF16 = {"H100": 989e12, "H200": 989e12}
"""Dense bfloat16 FLOP/s, by a word of the device's name (NVIDIA's data sheets, SXM)."""
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}
"""Bytes per second of the device's memory, from the same."""


@dataclass(frozen=True)
class Device:
    """platform: "cpu" or "gpu". memory_bytes: what both sides share."""

    platform: str
    kind: str
    memory_bytes: int
    cores: int

    @property
    def torch_name(self) -> str:
        return "cuda" if self.platform == "gpu" else "cpu"

    @property
    def dtype(self) -> str:
        """bfloat16 where the device computes with it, float32 on a CPU."""
        return "bfloat16" if self.platform == "gpu" else "float32"

    @property
    def peak_flops(self) -> float | None:
        return tabulated(PEAK_BF16, self.kind)

    @property
    def bandwidth(self) -> float | None:
        return tabulated(BANDWIDTH, self.kind)


def tabulated(table: dict[str, float], kind: str) -> float | None:
    """The entry whose key is a word of the device's name; None where there is none."""
    return next((value for key, value in table.items() if key in kind), None)


class _Probe:
    """Starts JAX, in a process that ends: the device's memory stays free for the sides."""

    def device(self) -> Device:
        import jax

        from xgenmm_jax.reporting.machine import describe_machine

        device = jax.devices()[0]
        cores = len(os.sched_getaffinity(0))
        if device.platform == "cpu":
            return Device("cpu", describe_machine()["cpu"], host_memory(), cores)
        stats = device.memory_stats() or {}
        return Device(device.platform, device.device_kind, stats.get("bytes_limit", 0), cores)


class Triad:
    """a = b + s c, over arrays that no cache holds."""

    def bytes_per_s(self, megabytes: int = 128, repeats: int = 9) -> float:
        """The best of some repeats: two arrays read, one written."""
        import jax
        import jax.numpy as jnp

        triad = jax.jit(lambda b, c: b + 3.0 * c)
        count = megabytes * 2**20 // 4
        b, c = jnp.ones(count, jnp.float32), jnp.ones(count, jnp.float32)
        jax.block_until_ready(triad(b, c))
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(triad(b, c))
            seconds.append(time.perf_counter() - start)
        return 3 * 4 * count / min(seconds)


def find_device() -> Device:
    """The first device that JAX sees. Call before the sides start; processes started afterwards share its memory."""
    # The sides of a comparison share the device: neither may take it all at its start, nor be kept from most of it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    # As under the `xgenmm` command: a side that is started anew for each round compiles once.
    keep_compilations()
    probe = Side(_Probe)
    device = probe.call("device")
    probe.close()
    if device.platform == "cpu":
        # Beside an installed libtpu JAX's profiler dies otherwise.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return device


def host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def resident_peak() -> int:
    """The most bytes that this process had resident."""
    lines = files.read_lines(Path("/proc/self/status"), "replace")
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
