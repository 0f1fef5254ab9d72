"""The training step of a run, lowered from shapes alone and compiled for a mesh of devices that need not exist."""

from collections.abc import Mapping
import importlib.metadata
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
import jaxlib

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.data.rows import build
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.hardware import GIB
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.optimizer import learning_rate, reference_of
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import check_rows, replicated, row_sharding
from xgenmm_jax.training.step import TrainState


class Arguments(NamedTuple):
    """What the step takes, as ShapeDtypeStructs with shardings."""

    state: TrainState
    reference: Any
    rows: Batch | DrawingBatch
    rate: jax.ShapeDtypeStruct


class Memory(NamedTuple):
    """Bytes on each chip. The first four are the step's arguments, by their logical shapes."""

    parameters: int
    optimizer: int
    reference: int
    batch: int
    layout: int
    """What the compiler's tiles add to the arguments."""
    temporaries: int
    """Activations, gradients, gathered parameters."""
    code: int
    host: int
    """In the host's memory: what a rematerialisation policy moves there."""
    peak: int
    """The most that is in use at a time, arguments included."""


class OutOfMemoryError(ValueError):
    """The compiler found no way to run the step in a chip's memory."""

    def __init__(self, message: str):
        super().__init__(message)
        self.needed_bytes, self.available_bytes = _sizes(message)

    @classmethod
    def of(cls, needed: float, available: float) -> "OutOfMemoryError":
        return cls(f"hbm: needs ({needed / GIB:.2f}G), exceeds ({available / GIB:.2f}G)")


def abstract_rows(data: DataConfig, sharding: NamedSharding) -> Batch | DrawingBatch:
    """Shapes of a global batch; no data set and no tokenizer is opened."""
    one = build.empty_rows(1, data.row, data.anyres, pad_id=0)
    if data.target_px:
        one = DrawingBatch.around(one, data.row.segments, data.target_px)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((data.batch_rows, *leaf.shape[1:]), leaf.dtype, sharding=sharding), one
    )


def lower_step(config: TrainConfig, mesh: Mesh) -> tuple[jax.stages.Lowered, Arguments]:
    """The very step that `training.loop.train` runs, and what it takes.

    Raises ValueError where the batch does not divide over accumulation and devices, or the warmup outlasts the run.
    """
    check_rows(mesh, config.data.batch_rows, config.accumulation)
    learning_rate(config.optimizer, config.steps)  # not in the program, but refused by `train` all the same
    program = assemble(config, mesh)
    state = program.abstract
    reference = reference_of(state.params, program.trainable) if config.keeps_reference else None
    rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
    arguments = Arguments(state, reference, abstract_rows(config.data, row_sharding(mesh)), rate)
    with jax.set_mesh(mesh):
        return program.step.lower(*arguments), arguments


def compile_step(lowered: jax.stages.Lowered, options: Mapping[str, str]) -> jax.stages.Compiled:
    """Raises OutOfMemoryError where it does not fit, ValueError for a compiler option that is not known or refused."""
    try:
        return lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        raise _explained(error) from error


def text_of(compiled: jax.stages.Compiled) -> str:
    """The compiled program. Raises ValueError where libtpu writes what this jaxlib cannot read."""
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            f"plan: jaxlib {jaxlib.__version__} cannot read the program that libtpu compiled; some for v6e need 0.12, "
            "that is Python 3.12 (make PYTHON=python3.12)."
        ) from error


def installed(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def another_libtpu() -> str | None:
    """One sentence where the compiler of the plan is another than that of a run: jax[tpu] wants one version."""
    needs = importlib.metadata.requires("jax") or ()
    pins = (re.match(r"libtpu *== *([\d.]+?)(\.\*)? *(;|$)", line) for line in needs)
    of_jax, used = next((match[1] for match in pins if match), None), installed("libtpu")
    if of_jax is None or used is None or used == of_jax or used.startswith(f"{of_jax}."):
        return None
    return (
        f"compiled with libtpu {used}; a run with jax {installed('jax')} has {of_jax} (pip install jax[tpu]) and may "
        "need other memory"
    )


def check_options(device: jax.Device, options: Mapping[str, str]) -> None:
    """Raises ValueError for options that the compiler does not know, before a long compilation."""
    if not options:
        return
    one = jax.ShapeDtypeStruct((8, 128), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device))
    compile_step(jax.jit(lambda x: x + x).lower(one), options)


def _explained(error: jax.errors.JaxRuntimeError) -> Exception:
    message = str(error)
    if match := re.search(r"No such compile option: '?([^'\n]+)'?", message):
        return ValueError(f"--compiler-option: libtpu knows no '{match[1]}'; check its name, dashes are underscores.")
    if match := re.search(r"Failed to parse '([^']*)' into flag (\w+)", message):
        return ValueError(f"--compiler-option: '{match[1]}' is no value of {match[2]}.")
    if "RESOURCE_EXHAUSTED" in message and re.search("hbm", message, re.IGNORECASE):
        return OutOfMemoryError(message)
    if match := re.search(r"FAILED_PRECONDITION: (.+)", message):
        return ValueError(f"--compiler-option: libtpu refuses the step with what it was given: {match[1].strip(' .')}.")
    return error


def _sizes(message: str) -> tuple[float | None, float | None]:
    """Bytes needed and available out of the compiler's words: "(24.11G) exceeds available HBM (15.75G)"."""
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    sizes = [float(number) * units[unit] for number, unit in re.findall(r"\b([\d.]+)([KMGT])\b", message)]
    return (sizes[0], sizes[1]) if len(sizes) > 1 else (None, None)


def memory_of(compiled: jax.stages.Compiled, arguments: Arguments) -> Memory:
    """Bytes per chip, by the compiler's own analysis."""
    analysis = compiled.memory_analysis()
    state, reference, rows, _ = arguments
    kinds = [bytes_per_device(tree) for tree in (state.params, state.opt_state, reference, rows)]
    return Memory(
        *kinds,
        layout=max(analysis.argument_size_in_bytes - sum(kinds), 0),
        temporaries=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
        host=analysis.host_argument_size_in_bytes + analysis.host_temp_size_in_bytes,
        peak=analysis.peak_memory_in_bytes or analysis.argument_size_in_bytes + analysis.temp_size_in_bytes,
    )


def bytes_per_device(tree: Any) -> int:
    """Of abstract arrays with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
