"""What a step can reach: tiles of matrix units, blocks of attention, memory, traffic."""

from dataclasses import replace
import functools
from unittest.mock import NonCallableMock

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask, splash_attention_mask_info
import numpy as np
import pytest

from experiments import dpo, sft_single, stage1
from experiments.blip2 import stage2
from xgenmm_jax.hardware import CHIPS
from xgenmm_jax.models.flops import Flops, passes
from xgenmm_jax.planning import bounds
from xgenmm_jax.planning.bounds import Times
from xgenmm_jax.planning.collectives import Traffic
from xgenmm_jax.planning.product_shapes import Product, computed_blocks, flops_of
from xgenmm_jax.planning.products import step_products
from xgenmm_jax.planning.topology import Topology

ALONE = {"replica": 1, "fsdp": 1, "tensor": 1}


def pod(kind: str, chips: int) -> Topology:
    return Topology(f"{kind}:made", 1, CHIPS[kind], (NonCallableMock(spec=jax.Device),) * chips)


def with_remat(config, remat):
    return replace(config, model=replace(config.model, decoder=replace(config.model.decoder, remat=remat)))


@functools.cache
def stage_1(crops: int):
    """4B as it was compiled: 16 crops a row then, 12 since."""
    base = with_remat(stage1.config(), "minimal_with_context")
    return replace(base, data=replace(base.data, row=replace(base.data.row, crops=crops)))


@pytest.mark.parametrize(
    "kind, chips, mesh, accumulation, by_hand",
    [
        ("v5e", 256, {"replica": 2, "fsdp": 128, "tensor": 1}, 2, 0.90),
        ("v5p", 128, {"replica": 1, "fsdp": 128, "tensor": 1}, 1, 0.90),
        ("v6e", 256, {"replica": 2, "fsdp": 128, "tensor": 1}, 1, 0.77),
    ],
)
@pytest.mark.parametrize("crops", [16, 12])
def test_stage_1_reaches_at_most_what_was_computed_by_hand(kind, chips, mesh, accumulation, by_hand, crops):
    """MFU with all traffic hidden; the plan had said 97 to 98 % of every cell."""
    config, on = replace(stage_1(crops), accumulation=accumulation), pod(kind, chips)
    times = bounds.times(config, mesh, 3.9e9 / 128, {}, on)
    utilisation = bounds.work(config).model.total / chips / on.chip.peak_flops / times.bound
    assert utilisation == pytest.approx(by_hand, abs=0.02)
    assert times.arithmetic < times.tiles and times.slowest == "tiles"


@pytest.mark.parametrize(
    "sides, unit, times_as_long",
    [
        ((1024, 96, 1024), 128, 128 / 96),
        ((1024, 96, 1024), 256, 256 / 96),
        ((1024, 1024, 96), 128, 128 / 96),  # the same where the width is not summed over
        ((1024, 72, 1024), 256, 256 / 72),
        ((4096, 1152, 4304), 256, 1280 / 1152),
        ((4096, 1152, 4304), 128, 1.0),
        ((4096, 3072, 16384), 256, 1.0),
        ((5, 7, 3), 0, 1.0),
    ],
)
def test_sides_that_fill_no_tile_take_as_long_as_a_tile(sides, unit, times_as_long):
    m, k, n = sides
    product = Product("decoder", m, k, n, 3, 0, 0)
    assert product.tiled(unit) == pytest.approx(3 * 2 * m * k * n * times_as_long)


@pytest.mark.parametrize("length, left", [(4096, 2047), (4096, None), (6144, 2047), (8192, 2047), (2176, 1000)])
@pytest.mark.parametrize("is_backward", [False, True])
def test_blocks_are_those_that_the_kernel_computes(length, left, is_backward):
    block_q, block_kv, count = computed_blocks(length, length, True, left)
    padded = -(-length // block_q) * block_q
    shape = (padded, padded)
    if left is None:
        mask = splash_attention_mask.CausalMask(shape)
    else:
        mask = splash_attention_mask.LocalMask(shape, (left, 0), 0)
    process = splash_attention_mask_info.process_mask_dkv if is_backward else splash_attention_mask_info.process_mask
    info, _ = process(splash_attention_mask.MultiHeadMask([mask]), (block_q, block_kv))
    assert count == np.count_nonzero(info.block_mask)


def test_a_row_of_4096_in_a_window_of_2047_is_nine_blocks():
    block_q, block_kv, count = computed_blocks(4096, 4096, True, 2047)
    assert count * block_q * block_kv == 9 * 1024**2
    assert computed_blocks(729, 729, False, None) == (768, 768, 1)


@pytest.mark.parametrize("freeze", [("vision",), (), ("vision", "connector"), ("vision", "decoder")])
@pytest.mark.parametrize("experiment", [stage1.config, stage1.config_14b, dpo.config])
def test_products_are_the_models_flops_and_what_is_computed_again(experiment, freeze):
    """Scores once more in the backward kernel, the head's logits once more, nothing of maps where all are kept."""
    config = with_remat(replace(experiment(), freeze=freeze), "minimal_with_context")
    kept = {part: replace(getattr(config.model, part), remat="none") for part in ("vision", "connector")}
    config = replace(config, model=replace(config.model, **kept))
    model, hardware = bounds.work(config)
    assert hardware.decoder == model.decoder
    reference = int(config.objective.needs_reference)
    backward = 3 if config.data.row.length > 4096 else 1  # products that the kernels compute beyond the four gradients
    assert hardware.attention == model.attention * (6 + 2 * reference + backward) / (6 + 2 * reference)
    head_passes = passes(freeze, config.objective.needs_reference).head
    assert hardware.head == pytest.approx(model.head * (head_passes + 1) / head_passes, rel=1e-12)
    assert hardware.connector == pytest.approx(model.connector, rel=0.06) and hardware.connector >= model.connector
    if "vision" in freeze:
        assert hardware.vision == model.vision


def test_chips_share_what_one_would_compute():
    """The tensor axis cuts no width: its chips repeat the patches' map and the connector's last."""
    config = sft_single.config()
    config = replace(config, data=replace(config.data, batch_rows=64))
    whole = flops_of(step_products(config, 1, 1))
    for shards, tensor, accumulation in ((64, 1, 1), (16, 4, 2), (8, 2, 8)):
        share = flops_of(step_products(replace(config, accumulation=accumulation), shards, tensor))
        for part, mine, all_of_it in zip(Flops._fields, share, whole, strict=True):
            assert all_of_it <= mine * shards * tensor <= 1.04 * all_of_it, part


def test_memory_is_read_once_and_written_once():
    """One map of 2 layers, trained: x and kernel in, y out, and the same sizes for both gradients; bfloat16."""
    config = stage_1(12)
    products = [p for p in step_products(config, 512, 1) if p.part == "decoder" and 3072 in p[1:4] and 9216 in p[1:4]]
    x, kernel, y = 4096 * 3072, 3072 * 9216, 4096 * 9216
    assert [p.bytes for p in products] == [32 * 2 * (x + kernel + y)] * 3
    assert bounds.OPTIMIZER_BYTES == 32


def test_exposed_traffic_takes_its_time_alone():
    on = pod("v5e", 256)
    config, mesh = replace(stage_1(12), accumulation=2), {"replica": 2, "fsdp": 128, "tensor": 1}
    rate = on.chip.links * on.chip.link_bandwidth
    traffic = {"all-gather": Traffic(1, 0.3 * rate, 0.0), "all-reduce": Traffic(1, 0.2 * rate, 0.0, 0.15 * rate)}
    times = bounds.times(config, mesh, 3.9e9 / 128, traffic, on)
    assert times.links == pytest.approx(0.5) and times.exposed == pytest.approx(0.15)
    assert times.exposed_bound == pytest.approx(times.bound + 0.15)
    slow = bounds.times(config, mesh, 3.9e9 / 128, {"all-gather": Traffic(1, 9 * rate, 0.0)}, on)
    assert slow.slowest == "links" and slow.bound == slow.exposed_bound == pytest.approx(9 + slow.optimizer)


def test_the_optimizer_waits_for_the_memory():
    times = bounds.times(stage_1(12), ALONE, 3.9e9, {}, pod("v5e", 1))
    assert times.optimizer == pytest.approx(3.9e9 * 32 / 8.1e11)
    assert Times(1, 2, 3, 0.5, 4, 1, 0).bound == 4.5 and Times(1, 5, 3, 0.5, 4, 1, 0).exposed_bound == 6.5


def test_a_q_former_is_planned_in_float32_and_with_dropout_without_a_kernel():
    """It was planned in two bytes a number and with the kernel's blocks, and has neither."""
    base = stage2.config()
    assert base.model.dtype == "bfloat16" and base.model.connector.dropout

    def of_connector(**changes):
        connector = replace(base.model.connector, attention="splash", **changes)
        model = replace(base.model, connector=connector)
        configs = (replace(base, model=replace(model, dtype=dtype)) for dtype in ("bfloat16", "float32"))
        return [[p for p in step_products(one, 8, 1) if p.part == "connector"] for one in configs]

    planned, exact = of_connector()
    assert planned == exact and sum(p.bytes for p in planned) > 0
    scores = {(p.m, p.n) for p in planned if p.k == 64}
    in_blocks = {(p.m, p.n) for p in of_connector(dropout=0.0)[0] if p.k == 64}
    assert scores == {(32, 32), (32, base.model.vision.features)} and in_blocks == {(128, 128), (128, 384)}
