"""How fast a step can be at most: its arithmetic at the chips' peak, its traffic at the links' rate."""

import math
from typing import NamedTuple

import numpy as np

from xgenmm_jax.data.pipeline import DataConfig
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vlm import VLMConfig
from xgenmm_jax.planning.collectives import Traffic
from xgenmm_jax.planning.topology import Topology
from xgenmm_jax.training.accounting import Flops, Load, forward_flops, passes, visible_pairs
from xgenmm_jax.training.config import TrainConfig

RECOMPUTED = {"none": (0.0, 0.0), "minimal_with_context": (0.0, 0.5), "minimal": (0.0, 1.0), "full": (1.0, 1.0)}
"""Forward passes that a rematerialisation policy repeats, of linear maps and of attention. `minimal_with_context` has
the context and needs the scores, half of attention's products, again."""


class Work(NamedTuple):
    """FLOPs of a step on full rows: what counts for MFU, and what the chips do with rematerialisation."""

    model: Flops
    hardware: Flops


class Times(NamedTuple):
    """Seconds of a step, each alone, at full rate; `bound`: the slowest, all else hidden behind it."""

    arithmetic: float
    links: float
    network: float

    @property
    def bound(self) -> float:
        return max(self)


def full_load(data: DataConfig, model: VLMConfig) -> Load:
    """What rows hold at most: no padding, one segment a row, every crop used, all text supervised.

    Packed rows have shorter segments, so less attention; the difference is below 5 % of the 4B's FLOPs at 4096.
    """
    rows, row = data.batch_rows, data.row
    vision = row.vision_tokens * (row.crops if row.vision_tokens_per == "crop" else row.images)
    return Load(
        tokens=rows * row.length,
        pairs=rows * visible_pairs(np.array([row.length]), model.decoder),
        supervised=rows * max(row.length - vision, 0),
        crops=rows * row.crops,
        images=rows * row.images,
    )


def work(config: TrainConfig) -> Work:
    """FLOPs of a step. Raises ValueError for a model that is no VLM."""
    model = config.model
    if not isinstance(model, VLMConfig):
        raise ValueError(f"plan: got a {type(model).__name__}; only stages of the whole model are planned.")
    reference = config.objective().reference
    count = passes(config.freeze, reference)
    linear, attention = RECOMPUTED[model.decoder.remat]
    again = Flops(
        # What no gradient goes through is not kept, so it is not repeated either.
        vision=RECOMPUTED[model.vision.remat][0] if "vision" not in config.freeze else 0.0,
        connector=_connector_remat(model) if count.connector - reference > 1 else 0.0,
        decoder=linear,
        attention=attention,
        head=1.0,  # each chunk of the loss
    )
    forward = forward_flops(model, full_load(config.data, model))
    return Work(forward.times(count), forward.times(count.plus(again)))


def _connector_remat(model: VLMConfig) -> float:
    return RECOMPUTED[model.connector.remat][0] if isinstance(model.connector, ResamplerConfig) else 0.0


def times(work: Work, traffic: dict[str, Traffic], topology: Topology) -> Times:
    """Optimistic: every link of a chip is busy, at no distance."""
    chip, chips = topology.chip, len(topology.devices)
    links = sum(kind.link_bytes for kind in traffic.values())
    network = sum(kind.network_bytes for kind in traffic.values())
    return Times(
        arithmetic=work.hardware.total / chips / chip.peak_flops,
        links=links / (chip.links * chip.link_bandwidth),
        network=network / chip.network_bandwidth,
    )


def estimated_traffic(config: TrainConfig, parameters: int, slices: int) -> dict[str, Traffic]:
    """Traffic before anything is compiled, for the order of a search: what sharded training cannot do without.

    Parameters are gathered in bfloat16 for the forward and the backward pass of every micro-batch, their gradients
    scattered in float32; with tensor > 1 a layer's activations are summed twice a pass. parameters: of the whole model.
    The mesh's sizes must be numbers, not -1.
    """
    decoder, row, mesh = config.model.decoder, config.data.row, config.mesh
    held = parameters / mesh.tensor
    share = (mesh.fsdp - 1) / mesh.fsdp
    rows = config.data.batch_rows / (mesh.fsdp * mesh.replica)
    activations = 4 * decoder.layers * rows * row.length * decoder.width * 2
    return {
        "all-gather": Traffic(2 * decoder.layers, config.accumulation * 4 * held * share, 0.0),
        "reduce-scatter": Traffic(
            decoder.layers, config.accumulation * 4 * held * share, 2 * 4 * held / mesh.fsdp * (slices - 1) / slices
        ),
        "all-reduce": Traffic(4 * decoder.layers, 2 * activations * (mesh.tensor - 1) / mesh.tensor, 0.0),
    }


def estimated_bytes(config: TrainConfig, parameters: int) -> float:
    """Memory of a chip before anything is compiled: state, gradients, what the backward pass needs of the decoder.

    Rough: for the order of a search, which compiles before it believes.
    """
    decoder, mesh = config.model.decoder, config.mesh
    width, hidden = decoder.width, decoder.hidden
    context = decoder.heads * decoder.head_width
    products = context + 2 * decoder.kv_heads * decoder.head_width + width + 2 * hidden + width
    kept = {"full": 0, "minimal": products, "minimal_with_context": products + context}
    layer = width + kept.get(decoder.remat, 2 * products) / mesh.tensor
    rows = config.data.batch_rows / config.accumulation / (mesh.fsdp * mesh.replica)
    positions = rows * config.data.row.length
    working = positions * (6 * width + 6 * hidden / mesh.tensor) * 2
    state = parameters * 4 * 4 / (mesh.fsdp * mesh.tensor)
    return state + positions * decoder.layers * layer * 2 + working


def divisors(number: int) -> list[int]:
    """Ascending: 12 gives 1 2 3 4 6 12."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
