"""The `xgenmm` command. Subcommands are imported when they are called, so that --help is instant."""

from collections.abc import Sequence
import contextlib
import ctypes
import importlib
import importlib.util
import os
from pathlib import Path
import sys

from xgenmm_jax.cli import errors, interrupts, streams
from xgenmm_jax.cli.compilation_cache import keep_compilations
from xgenmm_jax.cli.errors import nearest

COMMANDS = {
    "train": (
        "start or continue the run of an experiment file",
        "xgenmm train experiments/nano/stage1.py --optimizer.peak-lr 3e-4 --workdir runs/mine",
    ),
    "evaluate": ("score a run", "xgenmm evaluate runs/demo/sft_multi"),
    "score": ("rate predictions, of any model", "xgenmm score runs/sft_multi/evaluation/paper/mmstar.jsonl"),
    "table": ("the paper's tables with runs beside", "xgenmm table runs/sft_single runs/sft_multi"),
    "generate": ("ask a run about an image", 'xgenmm generate runs/demo/dpo --image my.png "What is this?"'),
    "draw": ("images of what a caption says", 'xgenmm draw runs/draw "a red star at the top left" -o star.png'),
    "convert": (
        "released weights in and out",
        "xgenmm convert DIR_OR_FILE runs/imported",
        "xgenmm convert runs/imported DIR --to xgenmm",
    ),
    "verify": (
        "is a downloaded or converted model whole and right",
        "xgenmm verify DIR_OR_RUN --reference good.npz",
    ),
    "data": (
        "look at data and at packed rows, index data for a run, pack them into shards of records",
        "xgenmm data check 'tars:data/{0000..0999}.tar' --reader image_captions",
        "xgenmm data show experiments/stage1.py --window 7",
        "xgenmm data index experiments/stage1.py",
        "xgenmm data pack mine.py:captions packed/captions",
    ),
    "curate": (
        "make OCR, grounding and preference data out of your own pictures",
        "xgenmm curate ocr 'folder:pictures/*.jpg' made/ocr",
    ),
    "plan": (
        "does a run fit chips that need not be there, how fast can it be",
        "xgenmm plan experiments/stage1.py --for v5e:16x16",
    ),
    "demo": ("all stages at nano size, and their report", "xgenmm demo --workdir runs/demo"),
}
"""Command -> (what it does, examples)."""

COMPUTING = ("train", "evaluate", "generate", "draw", "demo", "verify")
"""Commands that run the same programs again and again."""

LASTING = ("train", "demo")
"""Commands that go on where nobody reads what they print."""

ACCELERATORS = ("nvidia[0-9]*", "accel[0-9]*", "vfio/[0-9]*")
"""Nodes in /dev of NVIDIA GPUs and TPUs."""
OTHER_ACCELERATORS = ("nvidiactl", "dxg", "kfd")
"""Those of a container's GPUs, of WSL and of AMD."""

# Of mallopt, in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; gives the exit code.

    0: done. 1: an error, told in one line on stderr. 2: a mistyped command or option. 3: done, but for shards that
    could not be read (`xgenmm curate`). 143 (SIGTERM), 130 (Ctrl-C) and 129 (SIGHUP, a closed terminal): the run was
    saved and the same command continues it; of other commands, ended by Ctrl-C. 141: nobody read the output to its end.
    75: another host of the run hangs or is gone; start all again.
    """
    is_program, argv = argv is None, list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv else "--help"
    streams.mend_size()
    if is_program:
        interrupts.end_on_interrupt(f"xgenmm {command}")
    try:
        with streams.usable(lasting=command in LASTING):
            return run(command, argv[1:])
    except OSError as error:
        sentence = errors.os_sentence(error)
    with contextlib.suppress(OSError):
        line = errors.line(command, sentence) if command in COMMANDS else f"xgenmm: {sentence}"
        print(line, file=sys.stderr, flush=True)
    if is_program and command in LASTING:
        # Libraries would try to write again as the process ends, and print that they cannot.
        os._exit(1)
    return 1


def run(command: str, rest: list[str]) -> int:
    """Runs a subcommand; gives the exit code. Every error that can be one line is told in one.

    Raises OSError for the system's, also where a library told it as another.
    """
    if command in ("-h", "--help"):
        print("usage: xgenmm COMMAND [options]; xgenmm COMMAND --help lists them\n")
        for name, (does, *examples) in COMMANDS.items():
            print("\n".join([f"  {name:<10}{does}", *(f"{'':<14}{example}" for example in examples)]))
        return 0
    if command not in COMMANDS:
        print(f"xgenmm: no command '{command}'; {nearest(command, COMMANDS)}.", file=sys.stderr)
        return 2
    try:
        # What must be set before a command imports JAX.
        if not {"-h", "--help", "--help-all"} & set(rest):
            keep_compilations()
        pass_over_libtpu()
        if command in COMPUTING:
            keep_memory()
        return int(importlib.import_module(f"xgenmm_jax.cli.{command}").main(rest) or 0)
    except KeyboardInterrupt:
        print(f"xgenmm {command}: interrupted.", file=sys.stderr)
        return interrupts.EXIT_CODE
    except OSError:
        raise
    except Exception as error:
        # A library's error may be the system's: a full disk, a file that is not there.
        system = errors.of_the_system(error)
        if system is not None:
            raise system from error
        # Errors of users are one line; any other is a bug and keeps its traceback.
        sentence = say(error)
        if sentence is None:
            raise
        print(errors.line(command, sentence), file=sys.stderr)
        return 1


def say(error: Exception) -> str | None:
    """The sentence of an error that is the user's; None for one of ours, which is shown whole."""
    if isinstance(error, ValueError):
        return str(error)
    if (sentence := errors.bucket_sentence(error)) is not None:
        return sentence
    has_plugin = importlib.util.find_spec("jax_plugins") is not None
    return errors.devices_sentence(error, accelerators(), has_plugin)


def accelerators(devices: Path = Path("/dev")) -> list[Path]:
    """The nodes of GPUs and TPUs that this machine has."""
    return sorted(node for name in (*ACCELERATORS, *OTHER_ACCELERATORS) for node in devices.glob(name))


def pass_over_libtpu(devices: Path = Path("/dev")) -> None:
    """JAX on the CPU where an installed libtpu, which `make test` brings for `xgenmm plan`, is all that JAX has beside.

    It would look for its TPU and print five lines that there is none. Nothing is changed where JAX_PLATFORMS is set,
    JAX has a plugin (CUDA, ROCm, ...), or a device is there: JAX then says what it lacks to use it.
    """
    if importlib.util.find_spec("libtpu") is None or importlib.util.find_spec("jax_plugins") is not None:
        return
    if not accelerators(devices):
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
    if platforms != "cpu" and (platforms or any(node for name in ACCELERATORS for node in Path("/dev").glob(name))):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(*option) for option in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)))
