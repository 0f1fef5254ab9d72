"""`--for`: a stage's settings for chips, from what was compiled or from the estimate."""

from dataclasses import replace
import re

import pytest

from experiments import dpo, sft_multi, sft_single, stage1, stage2
from experiments.ablations import connector
from experiments.nano.starting_weights import vision_tower
from xgenmm_jax.planning import compiled_cells, estimates, presets
from xgenmm_jax.planning.presets import Preset, preset
from xgenmm_jax.planning.topology import named_topology
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.sharding import MeshConfig

STAGES = {"stage1": stage1, "stage2": stage2, "sft_single": sft_single, "sft_multi": sft_multi, "dpo": dpo}
CELLS = compiled_cells.compiled_cells()


def experiment(cell):
    module = STAGES[cell.stage]
    return module.config() if cell.size == "4b" else module.config_14b()


def name_of(cell) -> str:
    return f"{cell.size}-{cell.stage}-{cell.slices}x{cell.topology}"


@pytest.mark.parametrize("cell", CELLS, ids=name_of)
def test_a_stage_gets_the_settings_that_were_compiled_for_it(cell):
    config = experiment(cell)
    chosen = preset(config, named_topology(f"{cell.slices}x{cell.topology}"))
    assert chosen.cell == cell and chosen.fit is None
    taken = chosen.config
    assert taken.mesh == MeshConfig(cell.replica, cell.fsdp, cell.tensor)
    assert (taken.data.batch_rows, taken.accumulation) == (cell.rows, cell.accumulation)
    assert taken.model.decoder.remat == cell.remat
    # As many positions, as much of them in warmup; all else is the experiment's.
    assert taken.steps * cell.rows == pytest.approx(config.steps * config.data.batch_rows, rel=0.02)
    assert taken.optimizer.warmup_steps <= taken.steps / 2
    data = replace(taken.data, batch_rows=config.data.batch_rows)
    optimizer = replace(taken.optimizer, warmup_steps=config.optimizer.warmup_steps)
    same = replace(taken, data=data, mesh=config.mesh, accumulation=1, steps=config.steps, optimizer=optimizer)
    assert replace(same, model=config.model) == config


@pytest.mark.slow
def test_the_estimate_errs_by_no_more_than_it_says():
    """What fits in all likelihood, and what cannot, is told by these two factors."""
    parameters = {}
    for cell in CELLS:
        config = preset(experiment(cell), named_topology(f"{cell.slices}x{cell.topology}")).config
        key = (cell.size, cell.stage)
        parameters[key] = parameters.get(key) or estimates.parameters_of(config)
        estimate = estimates.estimated_bytes(config, estimates.held(config, parameters[key])) / 2**30
        assert estimates.LEAST * cell.peak_gib < estimate < estimates.MOST * cell.peak_gib, name_of(cell)


def test_a_batch_that_divides_stays_and_one_that_does_not_is_told():
    told = presets.lines(preset(stage1.config(), named_topology("v5e:16x16")), stage1.config())
    assert told == [
        "for v5e:16x16: mesh replica 2 x fsdp 128 x tensor 1, accumulation 2, decoder's remat minimal_with_context, "
        "512 rows a step; compiled as 4b stage1: 11.73 GiB of 15.75 GiB a device, there with 16 crops a row, here 12"
    ]
    fine_tuning = sft_single.config()
    _, batch = presets.lines(preset(fine_tuning, named_topology("v6e:16x16")), fine_tuning)
    assert batch.startswith("the batch is 256 rows instead of the experiment's 16, too few for these chips: ")
    assert f"{round(fine_tuning.steps / 16)} steps instead of {fine_tuning.steps}" in batch


@pytest.mark.parametrize(
    "change",
    [
        lambda base: replace(base, name="mine"),
        lambda base: replace(base, freeze=("vision", "connector")),
        lambda base: replace(base, data=replace(base.data, row=replace(base.data.row, crops=9))),
    ],
)
def test_a_stage_is_known_by_what_it_takes_not_by_its_name(change):
    chosen = preset(change(stage1.config()), named_topology("v5e:16x16"))
    assert chosen.cell is not None and chosen.cell.stage == "stage1"


def test_more_rows_are_more_micro_batches():
    """As many rows at a time as were compiled, no more."""
    base = stage1.config()
    chosen = preset(replace(base, data=replace(base.data, batch_rows=1024)), named_topology("v5e:16x16"))
    assert (chosen.config.data.batch_rows, chosen.config.accumulation) == (1024, 4)


@pytest.mark.parametrize(
    "config",
    [
        lambda: replace(stage1.config(), freeze=()),
        lambda: replace(stage1.config(), objective=NextToken(4096)),
        lambda: replace(sft_single.config(), data=sft_multi.config().data, objective=dpo.config().objective),
        lambda: replace(dpo.config(), freeze=("vision",)),
        connector.mlp,
    ],
    ids=["tower trains", "whole rows of logits", "preferences of other rows", "connector trains", "another connector"],
)
def test_what_takes_more_than_a_compiled_cell_is_estimated(config):
    chosen = preset(config(), named_topology("v5e:16x16"))
    assert chosen.cell is None and chosen.fit.is_likely and "by the estimate, not compiled" in chosen.source


@pytest.mark.parametrize(
    "config, name, rows",
    [
        (stage1.config, "h200", 512),
        (stage1.config, "h100:8", 512),
        (sft_single.config, "h200", 16),
        (stage1.config_14b, "2xh200:8", 512),
        (stage1.config, "tpu7x:4x4x4", 512),
        (stage1.config, "v5e:8x8", 512),
    ],
)
def test_other_chips_get_what_the_estimate_lets_fit(config, name, rows):
    topology = named_topology(name)
    chosen = preset(config(), topology)
    assert isinstance(chosen, Preset) and chosen.cell is None
    assert chosen.fit.estimate <= estimates.LEAST * topology.chip.hbm_bytes
    mesh = chosen.config.mesh
    assert mesh.replica * mesh.fsdp * mesh.tensor == len(topology.devices) and mesh.replica % topology.slices == 0
    assert chosen.config.data.batch_rows == rows
    assert rows % (mesh.replica * mesh.fsdp * chosen.config.accumulation) == 0


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_fits_the_hardware_in_its_files_head(stage):
    module = STAGES[stage]
    hardware = next(line for line in module.__doc__.splitlines() if line.startswith("Hardware: "))
    small, large = hardware.split(" (14B, ")[0], hardware.split(" (14B, ")[1]
    for config, words in ((module.config(), small), (module.config_14b(), large)):
        names = re.findall(r"\b\w+:[\dx]+", words)
        assert names
        for name in names:
            chips = len(named_topology(name).devices)
            assert re.search(rf"\b{chips} (TPU|H100|\()", hardware), (chips, hardware)
            assert preset(config, named_topology(name)).config.mesh.tensor == 1


def test_where_nothing_fits_it_is_one_sentence():
    with pytest.raises(ValueError, match=r"no settings .* '14b/stage1' fits h200: .* of 98.5 GiB a device"):
        preset(stage1.config_14b(), named_topology("h200"))
    with pytest.raises(ValueError, match=r"more chips, or look with `xgenmm plan FILE --topology v5e:2x4 --search`"):
        preset(stage1.config_14b(), named_topology("v5e:2x4"))
    with pytest.raises(ValueError, match=r"--for: got a TowerConfig \('nano/vision_tower'\); .* Leave --for away"):
        preset(vision_tower.config(), named_topology("h200"))


@pytest.mark.parametrize(
    "name, label, devices",
    [
        ("v5e:16x16", "v5e:16x16", 256),
        ("1xv5e:16x16", "v5e:16x16", 256),
        ("2xv5e:16x16", "2xv5e:16x16", 512),
        ("v5e:8", "v5e:2x4", 8),
        ("2xv6e:256", "2xv6e:16x16", 512),
        ("tpu7x:4x4x4", "tpu7x:4x4x4", 128),
        ("h200", "h200", 1),
        ("h200:1", "h200", 1),
        ("h100:8", "h100:8", 8),
        ("2xh100:8", "2xh100:8", 16),
    ],
)
def test_names_of_chips(name, label, devices):
    topology = named_topology(name, option="--for")
    assert (topology.label, len(topology.devices)) == (label, devices) and topology.is_named
    assert named_topology(topology.label) == topology


@pytest.mark.parametrize(
    "name", ["h200:9", "h200:0", "h100:2x4", "b200:8", "0xv5e:4x4", "v5e:0x4", "v5e:4x4x2", "v5e:3", "v4:8"]
)
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="^--(for|slices): got "):
        named_topology(name, option="--for")


def test_slices_are_said_once():
    assert named_topology("v5e:4x4", 2).label == "2xv5e:4x4"
    with pytest.raises(ValueError, match="--slices: got 2 beside '2xv5e:4x4'"):
        named_topology("2xv5e:4x4", 2)
