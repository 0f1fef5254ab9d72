"""How fast a step can be at most: its products on the matrix units, its traffic through memory and links."""

from collections.abc import Mapping
import math
from typing import NamedTuple

import numpy as np

from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.flops import Flops, Workload, model_flops, visible_pairs
from xgenmm_jax.planning.collectives import Traffic
from xgenmm_jax.planning.drawing import segment_lengths
from xgenmm_jax.planning.product_shapes import flops_of
from xgenmm_jax.planning.products import step_products, supervised
from xgenmm_jax.planning.topology import Topology
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.drawing_rows import DrawingRows

OPTIMIZER_BYTES = 4 * (2 + 3 + 3)
"""Of a parameter that AdamW trains, all float32: its gradient is read for the norm, then for the update; parameter and
two moments are read and written."""
AVERAGE_BYTES = 4 * 2
"""Of a parameter whose moving average is kept."""


class Work(NamedTuple):
    """FLOPs of a step on full rows: what counts for MFU, and what the chips do with rematerialisation."""

    model: Flops
    hardware: Flops


class Times(NamedTuple):
    """Seconds of a step, each alone. What is not counted, norms, softmax, lookups, counts as done beside the rest.

    Source: docs/reference/tpus.md#matrix-unit, docs/reference/tpus.md#chips.
    """

    arithmetic: float
    """Matrix products at the chip's peak, rematerialisation among them."""
    tiles: float
    """The same in whole tiles of the matrix unit and whole blocks of attention."""
    memory: float
    """Their operands and results, each once, and what arrives from other chips, at the memory's bandwidth."""
    optimizer: float
    """Gradients, parameters and moments through the memory, when all gradients are there."""
    links: float
    """All traffic of a slice, over all links of a chip at once."""
    exposed: float
    """The part of it that the compiled program runs beside no other work."""
    network: float
    """Traffic between slices."""

    @property
    def bound(self) -> float:
        """All traffic hidden behind other work, or other work behind it. No step is faster."""
        return max(self.tiles, self.memory, self.links, self.network) + self.optimizer

    @property
    def exposed_bound(self) -> float:
        """The compiled program's: what is hidden there, hidden; the rest by itself."""
        hidden = max(self.tiles, self.memory, self.links - self.exposed, self.network)
        return hidden + self.exposed + self.optimizer

    @property
    def slowest(self) -> str:
        """Which field the bound is of."""
        return max(("tiles", "memory", "links", "network"), key=lambda name: getattr(self, name))


def full_workload(data: DataConfig, model: VLMConfig) -> Workload:
    """What rows hold at most: no padding, one segment a row, every crop used, all text supervised.

    Packed rows have shorter segments, so less attention; the difference is below 5 % of the 4B's FLOPs at 4096.
    """
    rows, row = data.batch_rows, data.row
    return Workload(
        tokens=rows * row.length,
        pairs=rows * visible_pairs(np.array([row.length]), model.decoder),
        supervised=rows * supervised(row),
        crops=rows * row.crops,
        images=rows * row.images,
    )


def captions_workload(config: TrainConfig) -> Workload:
    """What rows of captions to draw hold at most: as many segments as they have room for, of equal length.

    Where samples with images to understand lie among them, rows count as full of those.
    """
    data, model, objective = config.data, config.model, config.objective
    assert isinstance(objective, DrawingRows)
    if objective.reads_images:
        return full_workload(data, model)
    tokens = data.batch_rows * data.row.length
    pairs = data.batch_rows * visible_pairs(segment_lengths(config), model.decoder)
    return Workload(tokens, pairs, supervised=0, crops=0, images=0)


def work(config: TrainConfig) -> Work:
    """FLOPs of a step. Raises ValueError for a model that is no VLM."""
    hardware = flops_of(step_products(config, 1, 1))
    load = full_workload(config.data, config.model)
    if isinstance(config.objective, DrawingRows):
        images = config.data.batch_rows * config.data.row.segments
        return Work(config.objective.work(config.model, captions_workload(config), images, config.freeze), hardware)
    reference = config.objective.needs_reference
    return Work(model_flops(config.model, load, config.freeze, reference, config.lora), hardware)


def times(
    config: TrainConfig, mesh: Mapping[str, int], trained: float, traffic: Mapping[str, Traffic], topology: Topology
) -> Times:
    """Optimistic: every link of a chip is busy, at no distance.

    mesh: sizes of its axes. trained: parameters that train, of a chip's share. traffic: of the compiled program, or {}.
    """
    chip = topology.chip
    products = step_products(config, mesh["replica"] * mesh["fsdp"], mesh["tensor"])
    average = AVERAGE_BYTES if config.average_decay else 0
    links = sum(kind.link_bytes for kind in traffic.values())
    exposed = sum(kind.exposed_bytes for kind in traffic.values())
    network = sum(kind.network_bytes for kind in traffic.values())
    link_rate = chip.links * chip.link_bandwidth
    return Times(
        arithmetic=flops_of(products).total / chip.peak_flops,
        tiles=sum(product.tiled(chip.unit) for product in products) / chip.peak_flops,
        memory=_over(sum(product.bytes for product in products) + links + network, chip.hbm_bandwidth),
        optimizer=_over((OPTIMIZER_BYTES + average) * trained, chip.hbm_bandwidth),
        links=_over(links, link_rate),
        exposed=_over(exposed, link_rate),
        network=_over(network, chip.network_bandwidth),
    )


def _over(amount: float | int, rate: float) -> float:
    """Seconds; 0 where the rate is not known."""
    return amount / rate if rate else 0.0


def divisors(number: int) -> list[int]:
    """Ascending: 12 gives 1 2 3 4 6 12."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
