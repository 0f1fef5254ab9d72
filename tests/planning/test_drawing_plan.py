"""Plans of stages that draw: FLOPs as the objectives count them, memory of what draws, the rows of the pipeline."""

import dataclasses
import math

import pytest

from experiments.blip3o import autoencoder, pixel_decoder, pretrain, tune
from experiments.nano import draw as nano_draw
from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.data.rows import build
from xgenmm_jax.models.blip3o import TowerTarget
from xgenmm_jax.models.remat import Remat
from xgenmm_jax.ops.partitioning import spec
from xgenmm_jax.planning import bounds, estimates, program
from xgenmm_jax.planning.presets import preset
from xgenmm_jax.planning.topology import named_topology
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.sharding import RULES, MeshConfig, make_mesh, row_sharding

STAGES = (pretrain.config, pretrain.eva, tune.config, autoencoder.config, pixel_decoder.config, nano_draw.pixels)
BIG = (pretrain, tune, autoencoder, pixel_decoder)


def with_remat(config: TrainConfig, remat: Remat) -> TrainConfig:
    """Of the decoder and of everything that draws."""
    drawing = config.model.drawing
    pixels = drawing.pixels
    if hasattr(pixels, "dit"):
        coder = dataclasses.replace(pixels.autoencoder, remat=remat)
        pixels = dataclasses.replace(pixels, dit=dataclasses.replace(pixels.dit, remat=remat), autoencoder=coder)
    drawing = dataclasses.replace(drawing, head=dataclasses.replace(drawing.head, remat=remat), pixels=pixels)
    decoder = dataclasses.replace(config.model.decoder, remat=remat)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, decoder=decoder, drawing=drawing))


@pytest.mark.parametrize("stage", STAGES)
def test_products_are_the_objectives_flops_and_scores_once_more(stage):
    config = with_remat(stage(), "minimal_with_context")
    model, hardware = bounds.work(config)
    assert hardware.target == model.target and hardware.decoder == model.decoder
    assert hardware.vision == hardware.connector == hardware.head == 0
    # Attention of the backward pass computes the scores again: one product beside six.
    assert model.drawing <= hardware.drawing <= 7 / 6 * model.drawing
    assert hardware.attention == pytest.approx(model.attention * 7 / 6)


def test_full_rows_count_as_the_objective_counts_them():
    """The plan's MFU and the run's were of different sums."""
    config = nano_draw.config()
    row, data = config.data.row, config.data
    rows = DrawingBatch.around(Batch.empty(data.batch_rows, row.length, 1, 1, 8), row.segments, 8)
    part = row.length // row.segments
    for segment in range(row.segments):
        rows.batch.segment_ids[:, segment * part : (segment + 1) * part] = segment + 1
        rows.target_segment[:, segment] = segment + 1
    counted = config.objective.flops(config.model, rows, config.freeze)
    assert counted == pytest.approx(bounds.work(config).model.total, rel=0.02)  # 128 positions are not three times 42


def test_the_last_layer_of_a_tower_does_not_run_for_the_penultimates_features():
    config = nano_draw.config()
    drawing = dataclasses.replace(config.model.drawing, target=TowerTarget(config.model.target_side, "penultimate"))
    early = dataclasses.replace(config, model=dataclasses.replace(config.model, drawing=drawing))
    layers = config.model.vision.layers
    for last, penultimate in zip(bounds.work(config), bounds.work(early), strict=True):
        assert penultimate.target < last.target
        assert penultimate.target == pytest.approx(last.target * (layers - 1) / layers, rel=0.1)


def test_joint_training_plans_understanding_too():
    config = pretrain.config()
    alone = bounds.work(config)
    joint = dataclasses.replace(config, objective=dataclasses.replace(config.objective, text_weight=1.0), freeze=())
    both = bounds.work(joint)
    assert both.model.drawing == alone.model.drawing and both.model.decoder == alone.model.decoder * 3 / 2
    assert min(both.hardware.vision, both.hardware.connector, both.hardware.head) > 0


@pytest.mark.parametrize(
    "module, topology",
    [
        pytest.param(module, topology, marks=() if (module, topology) == (pretrain, "v5e:16x16") else pytest.mark.slow)
        for module in BIG
        for topology in ("v5e:16x16", "v6e:16x16", "v5p:4x4x8")
    ],
)
def test_both_sizes_fit_the_pods_by_the_estimate(module, topology):
    for config in (module.config(), module.b14()):
        chosen = preset(config, named_topology(topology, option="--for"))
        assert chosen.fit is not None and chosen.fit.is_likely
        assert math.prod(dataclasses.astuple(chosen.config.mesh)) == len(chosen.topology.devices)


def test_memory_counts_the_average_and_the_places_for_images():
    config = dataclasses.replace(pretrain.config(), mesh=MeshConfig(1, 64, 1))
    parameters = estimates.parameters_of(config)
    costs = estimates.held(config, parameters)
    none = dataclasses.replace(config, average_decay=0.0)
    trained = estimates.held(none, parameters).trained
    assert costs.state - estimates.held(none, parameters).state == pytest.approx(4 * trained)
    assert 64 * trained == pytest.approx(1.363e9, rel=0.04)  # some biases stay whole
    wide = dataclasses.replace(config, objective=dataclasses.replace(config.objective, draws=8))
    assert estimates.estimated_bytes(wide, costs) > estimates.estimated_bytes(config, costs)
    more = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_rows=1024))
    assert estimates.estimated_bytes(more, costs) > 2 * estimates.estimated_bytes(config, costs) - costs.state


@pytest.mark.parametrize("stage", [pretrain.config, pretrain.eva])
def test_every_axis_of_what_draws_is_in_the_one_table(stage):
    """A name that the table lacks would leave a tensor whole on every chip."""
    parameters = [one for one in estimates.parameters_of(stage()) if one.part in ("drawing", "target", "pixels")]
    assert {name for one in parameters for name in one.names} <= {*RULES, None}
    sizes = {"replica": 1, "fsdp": 128, "tensor": 2}
    large = [one for one in parameters if math.prod(one.shape) > 1e6]
    whole = [one.shape for one in large if not any(spec(one.names, one.shape, RULES, sizes))]
    assert whole == []


def test_rows_with_images_to_draw_have_the_shapes_of_the_pipeline():
    data = nano_draw.config().data
    rows = program.abstract_rows(data, row_sharding(make_mesh(MeshConfig())))
    real = DrawingBatch.around(build.empty_rows(2, data.row, data.anyres, 0), data.row.segments, data.target_px)
    assert rows.target_pixels.shape == (16, 3, 64, 64, 3) and rows.target_pixels.dtype == real.target_pixels.dtype
    assert rows.target_seed.shape == (16, *real.target_seed.shape[1:]) and rows.query.shape == (16, 128)
