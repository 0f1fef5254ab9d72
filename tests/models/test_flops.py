"""Analytic FLOPs against the compiler's count of unrolled models, and what they leave out."""

from dataclasses import replace
from unittest.mock import NonCallableMock

from bound_objective import Bound
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_run

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.hardware import CHIPS
from xgenmm_jax.models import phi3, sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.flops import Flops, Workload, forward_flops, model_flops, passes, visible_pairs, workload_of
from xgenmm_jax.models.mlp_connector import MLPConnectorConfig
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.nano import tower_pretraining
from xgenmm_jax.nano.captioner import CaptionerConfig
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.nano.text_tower import TextTowerConfig
from xgenmm_jax.ops.masks import SlidingWindow, WindowConvention, causal_mask
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.objectives.caption_rows import CaptionBatch, CaptionData
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.optimizer import merge, split, trainable_mask
from xgenmm_jax.training.throughput import Throughput

LENGTH = 128  # no longer than a chunk of attention, which then computes whole squares
MODEL = VLMConfig(
    vision=ViTConfig(image_size_px=32, patch_px=4, width=96, hidden=256, layers=1, heads=2),
    connector=ResamplerConfig(width=96, layers=1, heads=2, head_width=64, hidden=256, queries=16, out_width=256),
    decoder=phi3.Phi3Config(vocab_size=512, num_text_tokens=480, width=256, hidden=704, layers=1, heads=4, kv_heads=2),
)

ROW = RowConfig(LENGTH, crops=3, images=3, vision_tokens=16)
DATA = DataConfig(
    ((Synthetic("caption", 8), 1.0),), "none.model", ROW, AnyRes(grids=(), view_px=32, view_cells=8), batch_rows=2
)


def full_rows(model: VLMConfig, rows: int = 2, crops: int = 3) -> Batch:
    """Rows without padding: one segment each, every text token a target."""
    side, queries = model.vision.image_size_px, model.tokens_per_group
    slot = np.full((rows, LENGTH), -1, np.int32)
    slot[:, : crops * queries] = np.arange(crops * queries)
    loss_mask = slot < 0
    loss_mask[:, 0] = False
    return Batch(
        token_ids=np.ones((rows, LENGTH), np.int32),
        segment_ids=np.ones((rows, LENGTH), np.int32),
        positions=np.tile(np.arange(LENGTH, dtype=np.int32), (rows, 1)),
        loss_mask=loss_mask,
        slot=slot,
        pixels=np.ones((rows, crops, side, side, 3), np.uint8),
        crop_image=np.tile(np.arange(crops, dtype=np.int32), (rows, 1)),
        crop_segment=np.ones((rows, crops), np.int32),
        image_grid=np.zeros((rows, crops, 2), np.int32),
        image_size_px=np.full((rows, crops, 2), side, np.int32),
        image_valid=np.tile(np.array([0, 8, 0, 8], np.int32), (rows, crops, 1)),
    )


COUNTED: dict = {}


def compiled_flops(model: VLMConfig, freeze: tuple[str, ...], batch: Batch) -> float:
    """The compiler's count of loss and gradient; each program is compiled once."""
    if (model, freeze) not in COUNTED:
        COUNTED[model, freeze] = _compiled_flops(model, freeze, batch)
    return COUNTED[model, freeze]


def _compiled_flops(model: VLMConfig, freeze: tuple[str, ...], batch: Batch) -> float:
    objective = Bound(NextToken(chunk=LENGTH), model, DATA, freeze)
    params = unboxed(jax.eval_shape(objective.init, jax.random.key(0)))
    trained, frozen = split(params, trainable_mask(params, freeze))

    def loss(trained, frozen, batch):
        return objective.loss(merge(trained, frozen), None, batch, jax.random.key(0))[0].total

    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
    return jax.jit(jax.value_and_grad(loss)).lower(trained, frozen, rows).compile().cost_analysis()["flops"]


def analytic_flops(model: VLMConfig, freeze: tuple[str, ...], batch: Batch) -> Flops:
    """As the program computes it: masked pairs too, the head at every position and once more in the backward pass."""
    rows = batch.token_ids.shape[0]
    load = workload_of(batch, model)._replace(pairs=rows * LENGTH**2, supervised=batch.token_ids.size)
    return model_flops(model, load, freeze, False).plus(Flops(0, 0, 0, 0, forward_flops(model, load).head))


BIGGER = {
    "vision": replace(MODEL, vision=replace(MODEL.vision, layers=2)),
    "connector": replace(MODEL, connector=replace(MODEL.connector, layers=2)),
    "decoder": replace(MODEL, decoder=replace(MODEL.decoder, layers=2)),
    "head": replace(MODEL, decoder=replace(MODEL.decoder, num_text_tokens=992, vocab_size=1024)),
}


@pytest.mark.parametrize(
    "freeze",
    [
        ("vision",),
        ("vision", "connector"),
        pytest.param(("vision", "decoder"), marks=pytest.mark.slow),
        pytest.param((), marks=pytest.mark.slow),
    ],
)
def test_the_compiler_counts_as_many(freeze):
    """Elementwise work is the difference: one to three percent."""
    batch = full_rows(MODEL)
    expected = analytic_flops(MODEL, freeze, batch).total
    assert expected < compiled_flops(MODEL, freeze, batch) < 1.05 * expected


@pytest.mark.parametrize("part", BIGGER)
def test_the_compiler_counts_as_many_of_each_part(part):
    """By what a larger part adds."""
    batch, freeze = full_rows(MODEL), ("vision",)
    more = analytic_flops(BIGGER[part], freeze, batch).total - analytic_flops(MODEL, freeze, batch).total
    added = compiled_flops(BIGGER[part], freeze, batch) - compiled_flops(MODEL, freeze, batch)
    assert more < added < 1.05 * more


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        replace(MODEL, connector=MLPConnectorConfig(width=96, out_width=256)),
        replace(MODEL, token_sampling=TokenSampling.FIXED_SAMPLING, max_image_crops=1),
        replace(MODEL, connector=replace(MODEL.connector, instruction_tokens=8)),
    ],
    ids=["mlp", "fixed_sampling", "instruction"],
)
def test_other_connectors_are_counted(model):
    batch = full_rows(model)
    counted, expected = compiled_flops(model, ("vision",), batch), analytic_flops(model, ("vision",), batch).total
    assert expected < counted < 1.08 * expected


def test_pairs_are_those_that_the_mask_shows():
    """Causal attention is halved, and cut by segments and window."""
    segments = np.array([[1] * 40 + [2] * 17 + [3] * 60 + [0] * 11, [1] * 128], np.int32)
    positions = np.concatenate([np.arange(n) for n in (40, 17, 60, 11, 128)]).astype(np.int32).reshape(2, 128)
    for window in WindowConvention:
        decoder = replace(MODEL.decoder, window=window, window_size=31)
        arrays = map(jnp.asarray, (segments, positions, segments, positions))
        mask = causal_mask(*arrays, SlidingWindow.of(window, 31).left)
        mask &= (segments > 0)[:, :, None]
        assert visible_pairs(np.array([40, 17, 60, 128]), decoder) == int(jnp.sum(mask))


def test_padding_costs_nothing():
    whole = full_rows(MODEL)
    padded = jax.tree.map(np.copy, whole)
    padded.segment_ids[1] = 0
    padded.crop_image[1] = -1
    padded.loss_mask[1] = False
    load = workload_of(whole, MODEL)
    assert load == Workload(256, 2 * 128 * 129 // 2, 2 * (128 - 48), 6, 6)
    assert workload_of(padded, MODEL) == Workload(*(count // 2 for count in load))


def test_passes_of_the_stages():
    """Frozen tower: forward only. A frozen decoder between a trained connector and the loss: its input's gradient."""
    assert passes(("vision",), False) == Flops(1, 3, 3, 3, 3)
    assert passes((), False) == Flops(3, 3, 3, 3, 3)
    assert passes(("vision", "decoder"), False) == Flops(1, 3, 2, 3, 2)
    assert passes(("vision", "connector"), True) == Flops(1, 1, 4, 4, 4)
    assert passes(("vision",), True) == Flops(1, 4, 4, 4, 4)


def test_phi3_mini_costs_what_is_published():
    """Spec: 25.3 GFLOP a token at 4096 positions, where the head counts at every position."""
    load = Workload(
        4096, visible_pairs(np.array([4096]), replace(sizes.PHI3_MINI, window=WindowConvention.NONE)), 4096, 0, 0
    )
    flops = forward_flops(sizes.B4, load).times(passes(("vision",), False))
    assert flops.total / 4096 == pytest.approx(25.3e9, rel=0.03)


def test_the_tower_counts_as_the_compiler_does():
    model = tower_pretraining.TowerConfig(
        vision=MODEL.vision,
        text=TextTowerConfig(128, 512, 1, 2, 512, 32, out_width=96),
        captioner=CaptionerConfig(128, 512, 1, 2, 512, 32),
    )
    loss = tower_pretraining.ContrastCaption(parallel=1.0)  # every pair of positions, as the program computes it
    data = CaptionData(((Synthetic("caption", 8), 1.0),), "none.model", 32, batch_rows=8, tokens=32)
    objective = Bound(loss, model, data, ())
    params = unboxed(jax.eval_shape(objective.init, jax.random.key(0)))
    pixels, token_ids = np.zeros((8, 32, 32, 3), np.uint8), np.zeros((8, 32), np.int32)
    unread = np.zeros(8, np.uint32), np.zeros(8, bool)
    rows = CaptionBatch(pixels, token_ids, np.ones((8, 32), bool), *unread)

    def total(params, rows):
        return objective.loss(params, None, rows, jax.random.key(0))[0].total

    counted = jax.jit(jax.value_and_grad(total)).lower(params, rows).compile().cost_analysis()["flops"]
    expected = tower_pretraining.tower_flops(model, loss.parallel, rows)
    assert expected < counted < 1.08 * expected


def test_mfu_is_of_the_devices_peak_and_absent_without_one():
    config = replace(toy_run.config(), model=MODEL, data=DATA, objective=NextToken(), freeze=("vision",))
    batch = full_rows(MODEL)
    meter = Throughput(config, [NonCallableMock(spec=jax.Device, device_kind="TPU v5 lite")] * 4)
    flops = meter.flops(batch)
    load = workload_of(batch, MODEL)
    features = 6 * 64 * 2 * 96 * 2 * 128  # crops, patches, to keys and values of two heads of 64
    assert flops == forward_flops(MODEL, load).times(Flops(1, 3, 3, 3, 3)).total - features
    row = meter.figures(tokens=800, flops=flops, seconds=2.0)
    assert row == {
        "tokens_per_second_per_device": 100.0,
        "model_flops_per_second": flops / 2,
        "mfu": flops / 2 / (4 * CHIPS["v5e"].peak_flops),
    }
    assert set(Throughput(config, jax.devices()).figures(800, flops, 2.0)) == set(row) - {"mfu"}
    assert set(Throughput(toy_run.config(), jax.devices()).figures(800, 0.0, 2.0)) == {"tokens_per_second_per_device"}
