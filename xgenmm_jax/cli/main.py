"""The `xgenmm` command. Subcommands are imported when they are called, so that --help is instant."""

from collections.abc import Sequence
import ctypes
import importlib
import importlib.util
import io
import os
from pathlib import Path
import sys

from xgenmm_jax.cli.errors import nearest

COMMANDS = {
    "train": "train: xgenmm train experiments/nano/stage1.py --optimizer.peak-lr 3e-4 --workdir runs/mine",
    "evaluate": "score a run: xgenmm evaluate runs/demo/sft_multi",
    "generate": 'ask a run about a picture: xgenmm generate runs/demo/dpo --image my.png "What is this?"',
    "convert": "released weights in and out: xgenmm convert DIR_OR_FILE runs/imported; RUN DIR --to xgenmm",
    "plan": "does a run fit a TPU slice, how fast can it be: xgenmm plan experiments/stage1.py --topology v5e:16x16",
    "demo": "all stages at nano size, and their report: xgenmm demo --workdir runs/demo",
}

COMPUTING = ("train", "evaluate", "generate", "demo")
"""Commands that run the same programs again and again."""

ACCELERATORS = ("nvidia[0-9]*", "accel[0-9]*", "vfio/[0-9]*")
"""Nodes in /dev of NVIDIA GPUs and TPUs."""
OTHER_ACCELERATORS = ("nvidiactl", "dxg", "kfd")
"""Those of a container's GPUs, of WSL and of AMD."""

# Of mallopt, in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; gives the exit code.

    0: done. 1: an error, told in one line on stderr. 2: a mistyped command or option. 143 (SIGTERM) and 130 (Ctrl-C):
    the run was saved and the same command continues it. 75: another host of the run hangs or is gone; start all again.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: xgenmm COMMAND [options]; xgenmm COMMAND --help says which\n")
        print("\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items()))
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        print(f"xgenmm: no command '{command}'; {nearest(command, COMMANDS)}.", file=sys.stderr)
        return 2
    print_everything()
    keep_compilations()
    pass_over_libtpu()
    if command in COMPUTING:
        keep_memory()
    try:
        code = importlib.import_module(f"xgenmm_jax.cli.{command}").main(rest)
    except (ValueError, OSError) as error:
        print(f"xgenmm {command}: {error}", file=sys.stderr)
        return 1
    return int(code or 0)


def print_everything() -> None:
    """Characters that the terminal's encoding lacks are printed as "\\xe9" instead of ending the command.

    As Python has it for stderr: answers and names of files may hold any character.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def keep_compilations() -> None:
    """Lets JAX keep compiled programs on disk between processes: stages and restarts compile once.

    The folder is JAX_COMPILATION_CACHE_DIR, by default ~/.cache/xgenmm/jax.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "xgenmm" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(default))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def pass_over_libtpu(devices: Path = Path("/dev")) -> None:
    """JAX on the CPU where an installed libtpu, which `make test` brings for `xgenmm plan`, is all that JAX has beside.

    It would look for its TPU and print five lines that there is none. Nothing is changed where JAX_PLATFORMS is set,
    JAX has a plugin (CUDA, ROCm, ...), or a device is there: JAX then says what it lacks to use it.
    """
    if importlib.util.find_spec("libtpu") is None or importlib.util.find_spec("jax_plugins") is not None:
        return
    if not any(found for name in (*ACCELERATORS, *OTHER_ACCELERATORS) for found in devices.glob(name)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def keep_memory() -> bool:
    """Lets glibc keep what is freed, so that XLA's buffers on a CPU are not mapped and zeroed anew in every step.

    One arena, no mapping of its own for a large block, no trimming: a nano step is 1.2 to 2 times as fast, for some
    0.5 GB (docs/log/cpu_runtime.md#glibc-keeps-freed-memory). Nothing is changed beside an accelerator, without glibc,
    and where GLIBC_TUNABLES or a MALLOC_ variable says how memory is to be kept. Call it before threads start. Gives
    whether memory is kept.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms != "cpu" and (platforms or any(found for name in ACCELERATORS for found in Path("/dev").glob(name))):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(*option) for option in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)))
