"""Traffic and memory of a run before anything is compiled, for the order in which a search compiles.

Rough: from each parameter's sharding, and from what a rematerialisation policy keeps. What it says fits in all
likelihood, or cannot fit, is what is left of it by its errors for the cells that were compiled.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math
from typing import NamedTuple

import jax

from xgenmm_jax.hardware import GIB
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.models.remat import OFFLOADED_NAMES
from xgenmm_jax.ops.partitioning import is_box, path_name, spec, unboxed
from xgenmm_jax.planning import drawing
from xgenmm_jax.planning.collectives import Traffic
from xgenmm_jax.planning.product_shapes import kept_products
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.base import Objective
from xgenmm_jax.training.optimizer import trainable_mask
from xgenmm_jax.training.setup import boxed_params
from xgenmm_jax.training.sharding import RULES, MeshConfig

SUBLANES = 8
"""A gradient can be summed and scattered in one where a chip's share is whole tiles of so many rows; else every chip
receives all of it and drops what is not its own, twice the traffic."""


LEAST, MOST = 0.8, 1.1
"""The estimate of memory by the compiler's peak, at least and at most: 0.82 to 1.07 in compiled_cells.csv."""


class Parameter(NamedTuple):
    """One tensor of the model."""

    shape: tuple[int, ...]
    names: tuple[str | None, ...]
    """Logical axes."""
    trains: bool
    part: str
    """Of the model, the first of its path."""


class Held(NamedTuple):
    """Bytes that the parameters of a run cost a chip under a mesh, and how many it trains."""

    state: float
    """Parameters, two moments, gradients and a moving average in float32, the reference of preference tuning."""
    gathered: float
    """Received for one pass through all layers, in the compute dtype's 2 bytes."""
    reduced: float
    """Received for the sum of gradients over a replica's chips."""
    shares: float
    """Of the gradient that a chip keeps: what replicas exchange."""
    trained: float
    """Parameters of a chip that train."""


def parameters_of(config: TrainConfig) -> tuple[Parameter, ...]:
    """Every tensor of the run's model, from shapes alone."""
    decoder = dataclasses.replace(config.model.decoder, remat="none")  # changes no shape
    model = dataclasses.replace(config.model, decoder=decoder)
    return _parameters(config.objective, model, config.freeze, config.lora)


@functools.lru_cache(maxsize=16)
def _parameters(
    objective: Objective, model: VLMConfig, freeze: tuple[str, ...], lora: LoRA | None
) -> tuple[Parameter, ...]:
    boxed = jax.eval_shape(functools.partial(boxed_params, objective, model, lora), jax.random.key(0))
    trains = jax.tree.leaves(trainable_mask(unboxed(boxed), freeze, lora))
    leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_box)
    return tuple(
        Parameter(leaf.value.shape, tuple(leaf.names), train, path_name(path).partition("/")[0])
        if is_box(leaf)
        else Parameter(leaf.shape, (None,) * leaf.ndim, train, path_name(path).partition("/")[0])
        for (path, leaf), train in zip(leaves, trains, strict=True)
    )


def held(config: TrainConfig, parameters: Sequence[Parameter]) -> Held:
    """Under the config's mesh, whose sizes must be numbers, not -1."""
    mesh = config.mesh
    sizes = {"replica": mesh.replica, "fsdp": mesh.fsdp, "tensor": mesh.tensor}
    copies = 4 + config.keeps_reference + bool(config.average_decay)
    drawn = drawing.of(config)
    state = gathered = reduced = shares = 0.0
    for shape, names, trains, part in parameters:
        cuts = {axis: dimension for dimension, axis in enumerate(spec(names, shape, RULES, sizes)) if axis is not None}
        whole = 2 * math.prod(shape) / (mesh.tensor if "tensor" in cuts else 1)
        is_cut = "fsdp" in cuts and mesh.fsdp > 1
        mine = whole / mesh.fsdp if is_cut else whole
        state += 2 * mine * (copies if trains else 1)
        is_read = drawn is None or part in drawn.parts
        gathered += (whole - mine) if is_cut and is_read else 0
        if trains:
            is_scattered = is_cut and shape[cuts["fsdp"]] // mesh.fsdp % SUBLANES == 0
            reduced += whole * (1 if is_scattered else 2) * (mesh.fsdp - 1) / mesh.fsdp
            shares += mine
    return Held(state, gathered, reduced, shares, shares / 2)


def trained_parameters(config: TrainConfig, mesh: Mapping[str, int]) -> float:
    """Of a chip, under a mesh of these sizes."""
    return held(dataclasses.replace(config, mesh=MeshConfig(**mesh)), parameters_of(config)).trained


def estimated_traffic(config: TrainConfig, costs: Held, slices: int) -> dict[str, Traffic]:
    """What sharded training cannot do without.

    Parameters are gathered for the forward and the backward pass of every micro-batch and their gradients summed; with
    tensor > 1 a layer's activations are summed twice a pass.
    """
    decoder, row, mesh = config.model.decoder, config.data.row, config.mesh
    rows = config.data.batch_rows / (mesh.fsdp * mesh.replica)
    drawn = drawing.of(config)
    has_decoder = drawn is None or drawn.reads_captions
    activations = 4 * decoder.layers * rows * row.length * decoder.width * 2 if has_decoder else 0
    replicas = mesh.replica // slices
    between = config.accumulation * 2 * costs.shares
    return {
        "all-gather": Traffic(2 * decoder.layers, config.accumulation * 2 * costs.gathered, 0.0),
        "reduce-scatter": Traffic(
            decoder.layers,
            config.accumulation * costs.reduced + between * (replicas - 1) / replicas,
            between * (slices - 1) / slices,
        ),
        "all-reduce": Traffic(4 * decoder.layers, 2 * activations * (mesh.tensor - 1) / mesh.tensor, 0.0),
    }


def estimated_bytes(config: TrainConfig, costs: Held) -> float:
    """Memory of a chip: state, gradients, what the backward pass needs of the decoder and of what draws."""
    decoder, mesh = config.model.decoder, config.mesh
    width, hidden = decoder.width, decoder.hidden
    heads, kv_heads = decoder.heads * decoder.head_width, decoder.kv_heads * decoder.head_width
    widths = {"qkv": heads + 2 * kv_heads, "context": heads, "out_proj": width, "mlp_in": 2 * hidden}
    on_host = OFFLOADED_NAMES.get(decoder.remat, ())
    saved = sum(widths[name] for name in kept_products(decoder.remat) if name not in on_host)
    saved += {"none": 2 * hidden + 4 * width, "minimal": width, "minimal_with_context": width}.get(decoder.remat, 0)
    layer = width + saved / mesh.tensor
    rows = config.data.batch_rows / config.accumulation / (mesh.fsdp * mesh.replica)
    positions = rows * config.data.row.length
    working = positions * (6 * width + 6 * hidden / mesh.tensor) * 2
    held = positions * decoder.layers * layer * 2
    if (drawn := drawing.of(config)) is not None:
        images = rows * config.data.row.segments
        held = held * drawn.reads_captions + drawing.held_bytes(config.model, drawn, images, mesh.tensor)
        working = max(working * drawn.reads_captions, drawing.working_bytes(config.model, drawn, images, mesh.tensor))
    return costs.state + held + working


class Fit(NamedTuple):
    """A step's memory by the estimate, bytes a device."""

    estimate: float
    available: float

    @property
    def is_impossible(self) -> bool:
        """Whether it does not fit, even where the estimate is as much too high as it ever was."""
        return self.least > self.available

    @property
    def is_likely(self) -> bool:
        """Whether it fits, even where the estimate is as much too low as it ever was."""
        return self.most <= self.available

    @property
    def least(self) -> float:
        return self.estimate / MOST

    @property
    def most(self) -> float:
        return self.estimate / LEAST

    @property
    def words(self) -> str:
        """As "10.2 (9.3 to 12.8) GiB of 15.8 GiB a device"."""
        sizes = (f"{size / GIB:.1f}" for size in (self.estimate, self.least, self.most, self.available))
        return "{} ({} to {}) GiB of {} GiB a device".format(*sizes)


def fit(config: TrainConfig, available: float) -> Fit:
    """Of a config whose mesh has numbers for sizes, not -1, with so much memory a device."""
    return Fit(estimated_bytes(config, held(config, parameters_of(config))), available)
