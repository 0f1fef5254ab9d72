"""How fast a step can be at most: its arithmetic at the chips' peak, its traffic at the links' rate."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.flops import (
    Flops,
    Workload,
    forward_flops,
    linear,
    model_flops,
    resampler_flops,
    visible_pairs,
    vision_flops,
)
from xgenmm_jax.models.remat import OFFLOADED_NAMES, SAVED_NAMES
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.planning.collectives import Traffic
from xgenmm_jax.planning.topology import Topology
from xgenmm_jax.training.config import TrainConfig

PRODUCTS = ("qkv", "context", "out_proj", "mlp_in")
"""What a layer's backward pass needs again, by the names of remat policies; no backward pass needs the last product."""


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


def full_workload(data: DataConfig, model: VLMConfig) -> Workload:
    """What rows hold at most: no padding, one segment a row, every crop used, all text supervised.

    Packed rows have shorter segments, so less attention; the difference is below 5 % of the 4B's FLOPs at 4096.
    """
    rows, row = data.batch_rows, data.row
    vision = row.vision_tokens * (row.crops if row.vision_tokens_per == "crop" else row.images)
    return Workload(
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
    load = full_workload(config.data, model)
    flops = model_flops(model, load, config.freeze, config.objective.needs_reference, config.lora)
    repeated = _repeated(model, load, forward_flops(model, load), set(config.freeze))
    return Work(flops, flops.plus(repeated))


def kept_products(remat: str) -> set[str]:
    """Which of PRODUCTS a policy keeps, on the device or with the host."""
    if remat in ("none", "minimal_with_context"):
        return set(PRODUCTS)
    if remat == "minimal":
        return set(PRODUCTS) - {"context"}
    return set({**SAVED_NAMES, **OFFLOADED_NAMES}.get(remat, ())) & set(PRODUCTS)


def _repeated(model: VLMConfig, load: Workload, forward: Flops, frozen: set[str]) -> Flops:
    """FLOPs that rematerialisation repeats, with the loss's and those of scores in attention's backward kernel.

    What no gradient goes through keeps nothing and repeats nothing. Of tower and connector only `full` is counted.
    """
    decoder, vision, connector = model.decoder, model.vision, model.connector
    heads, kv_heads = decoder.heads * decoder.head_width, decoder.kv_heads * decoder.head_width
    products = {
        "qkv": linear(decoder.width, heads + 2 * kv_heads),
        "out_proj": linear(heads, decoder.width),
        "mlp_in": linear(decoder.width, 2 * decoder.hidden),
    }
    missing = set(PRODUCTS) - kept_products(decoder.remat)
    # Half the hidden width stands for a feed-forward without its second map, which nothing needs again.
    of_vision = of_connector = 0
    if "vision" not in frozen and vision.remat == "full":
        of_vision = load.crops * vision_flops(dataclasses.replace(vision, hidden=vision.hidden // 2))
    is_reached = not {"vision", "connector"} <= frozen
    if is_reached and isinstance(connector, ResamplerConfig) and connector.remat == "full":
        groups = load.images if model.token_sampling is TokenSampling.FIXED_SAMPLING else load.crops
        layers = dataclasses.replace(connector, hidden=connector.hidden // 2, out_width=0)
        of_connector = resampler_flops(layers, groups, load.crops * vision.patches)
    return Flops(
        vision=of_vision,
        connector=of_connector,
        decoder=decoder.layers * load.tokens * sum(flops for name, flops in products.items() if name in missing),
        attention=forward.attention * (1.5 if "context" in missing else 0.5),
        head=forward.head,
    )


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


def divisors(number: int) -> list[int]:
    """Ascending: 12 gives 1 2 3 4 6 12."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
