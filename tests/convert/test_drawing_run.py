"""A run that draws, in the released layout: its understanding model, with the bytes and settings of the run below."""

import dataclasses

import drawing_cases as cases
import jax.numpy as jnp
import pytest

from xgenmm_jax.api.conversion import export_checkpoint
from xgenmm_jax.convert.exporting import NOT_DRAWN
from xgenmm_jax.data.anyres import GRIDS_RELEASED, AnyRes
from xgenmm_jax.data.rows.config import Asking
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.blip3o import UNDERSTANDING
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.runs import run_folder
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress
from xgenmm_jax.training.step import TrainState

VIEWS = AnyRes(grids=GRIDS_RELEASED, view_px=64, view_cells=8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The understanding model alone, and with what draws over it."""
    folder = tmp_path_factory.mktemp("runs")
    model = cases.model()
    alone = VLMConfig(**{field.name: getattr(model, field.name) for field in dataclasses.fields(VLMConfig)})
    data = cases.data(segments=4, batch_rows=2)
    asked = Asking(VIEWS, ChatStyle(system=None))
    drawing = TrainConfig("drawing", model, dataclasses.replace(data, asked=asked), cases.FlowMatching(), steps=1)
    row = dataclasses.replace(data.row, crops=8)
    below = dataclasses.replace(data, mixture=(), anyres=VIEWS, row=row, target_px=0)
    params = cases.params(model)
    save(folder / "drawing", drawing, params)
    save(folder / "below", TrainConfig("below", alone, below, NextToken(), steps=1), {
        part: params[part] for part in UNDERSTANDING
    })  # fmt: skip
    return folder


def save(folder, config, params):
    run_folder.prepare(config, folder)
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(TrainState(jnp.int32(1), params, {"count": jnp.zeros(())}, jnp.ones((), bool)), Progress())


def test_the_understanding_model_is_that_of_the_run_below_to_the_byte(runs):
    notes = export_checkpoint(runs / "drawing", runs / "out", "xgenmm")
    others = export_checkpoint(runs / "below", runs / "out_below", "xgenmm")
    assert NOT_DRAWN in notes and tuple(note for note in notes if note != NOT_DRAWN) == others
    folders = (runs / "out", runs / "out_below")
    written, below = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert written.keys() == below.keys() and "preprocessor_config.json" in written
    # The model card tells what trained.
    assert {name for name in written if written[name] != below[name]} == {"README.md"}
    assert b"draws" in written["README.md"]


def test_what_draws_is_written_by_its_own_rules(runs):
    notes = export_checkpoint(runs / "drawing", runs / "out_drawing", "blip3o")
    assert any("understand" in note or "embedding" in note for note in notes)
    with pytest.raises(ValueError, match="the run has no diffusion transformer; choose another --to"):
        export_checkpoint(runs / "below", runs / "none", "blip3o")
    assert not (runs / "none").exists()
