"""Time and memory of import and export of a checkpoint in the released layout, beside a plain copy of its files.

    python benchmarks/convert.py --folder /tmp/convert --json convert.json    # 4.36B in float32: needs 55 GB of disk
    python benchmarks/convert.py --folder /tmp/convert --decoder-layers 2 --vision-layers 2

Makes random weights in shards of at most 5 GB, copies them, imports them, exports the import, compares every tensor
with the first, prints a table and writes it as JSON. Deletes the folder at the end.

Each step is a process of its own and begins with nothing of its input in the page cache; its time ends when its bytes
are on the disk. Memory is the resident memory of the process and its children together.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
import json
import math
import multiprocessing
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time

import ml_dtypes
import numpy as np

from xgenmm_jax import files
from xgenmm_jax.convert import trees
from xgenmm_jax.convert.formats import xgenmm
from xgenmm_jax.convert.rules import Shape, their_shapes
from xgenmm_jax.convert.safetensors_writer import SHARD_BYTES, SafetensorsWriter
from xgenmm_jax.convert.tensor_files import open_tensors
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig

COMMAND = "import sys; from xgenmm_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
SAMPLE_S = 0.05


@dataclass(frozen=True)
class Cost:
    """Of one step. seconds: until its bytes are on the disk. cpu_s: user and system, all threads."""

    step: str
    seconds: float
    cpu_s: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="created, filled and deleted")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--decoder-layers", type=int, default=Phi3Config().layers)
    parser.add_argument("--vision-layers", type=int, default=ViTConfig().layers)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES)
    arguments = parser.parse_args()
    config = VLMConfig(
        replace(ViTConfig(), layers=arguments.vision_layers),
        ResamplerConfig(),
        replace(Phi3Config(), layers=arguments.decoder_layers),
    )
    dtype = DTYPES[arguments.dtype]
    shapes = their_shapes(xgenmm.rules(config), trees.shapes(config))
    parameters = sum(map(math.prod, shapes.values()))
    size = parameters * dtype.itemsize
    arguments.folder.mkdir(parents=True)
    try:
        # Source, run (float32 always) and export stand at once; the copy is deleted before.
        check_room(arguments.folder, 2 * size + parameters * 4)
        make_apart(arguments.folder / "source", shapes, dtype, arguments.shard_bytes)
        print(f"{parameters:,} parameters, {len(shapes)} tensors, {size / 1e9:.2f} GB of {arguments.dtype}", flush=True)
        costs = measure_all(arguments.folder, arguments.dtype)
        same = compare(arguments.folder / "source", arguments.folder / "out")
        print(f"{same} tensors have the same bytes")
    finally:
        shutil.rmtree(arguments.folder)
    if arguments.json:
        figures = {
            "parameters": parameters,
            "bytes": size,
            "dtype": arguments.dtype,
            "tensors_with_the_same_bytes": same,
            "cores": os.cpu_count(),
            "steps": [asdict(cost) for cost in costs],
        }
        files.write_whole(arguments.json, json.dumps(figures, indent=2) + "\n")


def check_room(folder: Path, needed: int) -> None:
    """Exits with a sentence where the disk is too small."""
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05:
        raise SystemExit(f"convert: {needed * 1.05 / 1e9:.0f} GB are needed in {folder}, {free / 1e9:.0f} are free.")


def make_apart(folder: Path, shapes: dict[str, Shape], dtype: np.dtype, shard_bytes: int) -> None:
    """Makes the checkpoint in a process of its own, so that its memory is given back."""
    maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, shapes, dtype, shard_bytes))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit("convert: making the checkpoint failed.")


def make(folder: Path, shapes: dict[str, Shape], dtype: np.dtype, shard_bytes: int) -> None:
    """Random tensors: windows into one pool of random numbers, each from another offset."""
    folder.mkdir()
    largest = max(map(math.prod, shapes.values()))
    pool = np.random.default_rng(0).standard_normal(largest + len(shapes), np.float32).astype(dtype)
    with SafetensorsWriter(folder, shapes, dtype, shard_bytes) as writer:
        for number, (name, shape) in enumerate(shapes.items()):
            writer.write(name, pool[number : number + math.prod(shape)].reshape(shape))


def measure_all(folder: Path, dtype: str) -> list[Cost]:
    """Copy, import, export, and a line of the table for each as it is done."""
    source, copy, run, out = (folder / name for name in ("source", "copy", "run", "out"))
    convert = [sys.executable, "-c", COMMAND, "convert"]
    steps = {
        "copy": (source, ["cp", "-r", "--reflink=never", str(source), str(copy)]),
        "import": (source, [*convert, str(source), str(run)]),
        "export": (run, [*convert, str(run), str(out), "--to", "xgenmm", "--dtype", dtype]),
    }
    print(f"{'step':<8}{'seconds':>9}{'of copy':>9}{'CPU-s':>8}{'peak GB':>9}")
    costs: list[Cost] = []
    for step, (given, command) in steps.items():
        cost = measure(step, given, command)
        costs.append(cost)
        ratio = cost.seconds / costs[0].seconds
        print(f"{step:<8}{cost.seconds:9.1f}{ratio:9.2f}{cost.cpu_s:8.1f}{cost.peak_bytes / 1e9:9.2f}", flush=True)
        shutil.rmtree(copy, ignore_errors=True)
    return costs


def measure(step: str, given: Path, command: Sequence[str]) -> Cost:
    """Runs a command. given: the folder that it reads."""
    os.sync()
    forget(given)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak, ended = 0, 0
    while not ended:
        peak = max(peak, sum(map(resident_bytes, family(process.pid))))
        time.sleep(SAMPLE_S)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    os.sync()
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"convert: {step} failed.")
    # The kernel's own maximum of the largest process stands in for peaks between two samples.
    return Cost(step, seconds, usage.ru_utime + usage.ru_stime, max(peak, usage.ru_maxrss * 1024))


def forget(folder: Path) -> None:
    """Drops a folder's files from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            numbers = files.read_text(children).split()
        except OSError:
            # It ended in between.
            continue
        for number in numbers:
            yield from family(int(number))


def resident_bytes(pid: int) -> int:
    """0 for a process that has ended."""
    try:
        pages = int(files.read_text(Path(f"/proc/{pid}/statm")).split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def compare(one: Path, other: Path) -> int:
    """The number of tensors. Raises AssertionError at the first difference."""
    first, second = open_tensors(one), open_tensors(other)
    assert first.infos.keys() == second.infos.keys()
    for name, info in first.infos.items():
        assert info.shape == second.infos[name].shape and info.dtype == second.infos[name].dtype, name
        assert np.array_equal(first.read(name).reshape(-1).view(np.uint8), second.read(name).reshape(-1).view(np.uint8))
    first.close()
    second.close()
    return len(first.infos)


if __name__ == "__main__":
    main()
