"""Time and memory of import and export of a checkpoint in the released layout, beside a plain copy of its files.

    python benchmarks/convert.py --folder /tmp/convert                        # 4.36B in float32: needs 55 GB of disk
    python benchmarks/convert.py --folder /tmp/convert --decoder-layers 2 --vision-layers 2

Makes random weights in shards of at most 5 GB, copies them, imports them, exports the import, compares every tensor
with the first, and prints seconds and peak resident memory of each. Deletes the folder at the end.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
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

from xgenmm_jax.convert import trees, xgenmm
from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.convert.safetensors_writer import SHARD_BYTES, SafetensorsWriter
from xgenmm_jax.convert.tensor_files import open_tensors
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.models.vlm import VLMConfig

COMMAND = "import sys; from xgenmm_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--decoder-layers", type=int, default=Phi3Config().layers)
    parser.add_argument("--vision-layers", type=int, default=ViTConfig().layers)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES)
    arguments = parser.parse_args()
    config = VLMConfig(
        replace(ViTConfig(), layers=arguments.vision_layers),
        ResamplerConfig(),
        replace(Phi3Config(), layers=arguments.decoder_layers),
    )
    dtype = np.dtype(np.float32 if arguments.dtype == "float32" else ml_dtypes.bfloat16)
    shapes = their_shapes(xgenmm.rules(config), trees.shapes(config))
    size = sum(map(math.prod, shapes.values())) * dtype.itemsize
    arguments.folder.mkdir(parents=True)
    free = shutil.disk_usage(arguments.folder).free
    # Source, run (float32 always) and export stand at once; the copy is deleted before.
    wanted = 2 * size + size * 4 // dtype.itemsize
    if free < wanted * 1.05:
        raise SystemExit(f"convert: {wanted / 1e9:.0f} GB are needed in {arguments.folder}, {free / 1e9:.0f} are free.")
    try:
        source, copy = arguments.folder / "source", arguments.folder / "copy"
        # In a process of its own: the peak of a child counts from its parent's memory.
        maker = multiprocessing.get_context("spawn").Process(
            target=make, args=(source, shapes, dtype, arguments.shard_bytes)
        )
        maker.start()
        maker.join()
        print(f"{len(shapes)} tensors, {size / 1e9:.2f} GB of {arguments.dtype}, {len(os.listdir(source))} files")
        # One byte in and out of the page cache is as good as another: nothing is dropped between the steps.
        measure("copy", ["cp", "-r", "--reflink=never", str(source), str(copy)])
        shutil.rmtree(copy)
        run, out = arguments.folder / "run", arguments.folder / "out"
        convert = [sys.executable, "-c", COMMAND, "convert"]
        measure("import", [*convert, str(source), str(run)])
        measure("export", [*convert, str(run), str(out), "--to", "xgenmm", "--dtype", arguments.dtype])
        print(f"{compare(source, out)} tensors are the same bytes")
    finally:
        shutil.rmtree(arguments.folder)


def make(folder: Path, shapes: dict[str, tuple[int, ...]], dtype: np.dtype, shard_bytes: int) -> None:
    """Random tensors: windows into one pool of random bytes, each begun at another place."""
    folder.mkdir()
    largest = max(map(math.prod, shapes.values()))
    pool = np.random.default_rng(0).standard_normal(largest + len(shapes), np.float32).astype(dtype)
    with SafetensorsWriter(folder, shapes, dtype, shard_bytes) as writer:
        for number, (name, shape) in enumerate(shapes.items()):
            writer.write(name, pool[number : number + math.prod(shape)].reshape(shape))


def measure(what: str, command: Sequence[str]) -> None:
    """Runs it and prints seconds until its bytes are on the disk, and the peak of its resident memory."""
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    done = time.perf_counter() - start
    os.sync()
    if status:
        raise SystemExit(f"convert: {what} failed.")
    synced = time.perf_counter() - start
    print(f"{what:<8}{done:7.1f} s, {synced:7.1f} s with sync, peak {usage.ru_maxrss / 2**20:5.2f} GiB, "
          f"{usage.ru_utime + usage.ru_stime:.1f} CPU-s", flush=True)  # fmt: skip


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
