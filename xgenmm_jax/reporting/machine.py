"""What a run ran on, and how much memory it took."""

from collections.abc import Mapping
import importlib.metadata
import os
from pathlib import Path
import platform
from typing import Any

from xgenmm_jax import files


def describe_machine(accelerator: str = "") -> dict[str, Any]:
    """Processor, cores that this process may use, memory, versions.

    accelerator: what `accelerator_name` gives; empty on a CPU.
    """
    facts: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
        "flax": importlib.metadata.version("flax"),
    }
    return facts | ({"accelerator": accelerator} if accelerator else {})


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in files.read_lines(info, "replace"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine_sentence(machine: Mapping[str, Any]) -> str:
    """One line of it: "AMD EPYC, 2 cores, 7.8 GB memory, Python 3.12.4, JAX 0.10.2"."""
    parts = [str(machine.get("cpu", "unknown CPU")), f"{machine.get('cores', '?')} cores"]
    if machine.get("accelerator"):
        parts.append(str(machine["accelerator"]))
    if machine.get("memory_gib"):
        parts.append(f"{machine['memory_gib']} GiB memory")
    parts += [f"Python {machine.get('python', '?')}", f"JAX {machine.get('jax', '?')}"]
    return ", ".join(parts)


def accelerator_name() -> str:
    """"2 x NVIDIA H100" or, where JAX computes on the CPU, nothing. Starts JAX."""
    import jax

    devices = jax.devices()
    return "" if devices[0].platform == "cpu" else f"{len(devices)} x {devices[0].device_kind}"


def memory_mib(pid: int | None = None) -> float:
    """Resident memory of a process and all that descend from it, in MiB; 0 where the system has no /proc.

    Pages that they share are counted in each, so this is at least what they take.
    """
    proc = Path("/proc")
    if not (proc / "self" / "statm").is_file():
        return 0.0
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                # The name in brackets may hold anything, spaces too.
                parent = int(files.read_text(entry / "stat", "replace").rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue  # it ended just now
            children.setdefault(parent, []).append(int(entry.name))
    pages, waiting = 0, [os.getpid() if pid is None else pid]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            pages += int(files.read_text(proc / str(process) / "statm").split()[1])
        except (OSError, IndexError, ValueError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
