"""Fine-tuning from a run that draws: its understanding model, with the views and words that it is asked in."""

import contextlib
import dataclasses
import json
from pathlib import Path

import drawing_cases as cases
import jax
import numpy as np
import PIL.Image
import pytest

import xgenmm_jax
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.cli.main import main
from xgenmm_jax.data.anyres import GRIDS_RELEASED, AnyRes
from xgenmm_jax.data.rows.config import Asking
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.blip3o import PARTS
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import MeshConfig, make_mesh

EXPERIMENT = Path(__file__).parents[2] / "experiments/finetune.py"
VIEWS = AnyRes(grids=GRIDS_RELEASED, view_px=64, view_cells=8, single_view_up_to_px=64)
STYLE = ChatStyle(system="Tell what is there.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that draws, two pictures and questions about them."""
    folder = tmp_path_factory.mktemp("user")
    data = dataclasses.replace(cases.data(segments=2, batch_rows=2, length=128), asked=Asking(VIEWS, STYLE))
    cases.saved(folder / "draw", data)
    rows = []
    for number, shade in enumerate((30, 200)):
        PIL.Image.new("RGB", (120, 90), (shade, 90, 200)).save(folder / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "a red star"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (folder / "my.json").write_text(json.dumps(rows))
    return folder


def of_drawing(folder: Path) -> TrainConfig:
    given = {"initialize_run": "draw", "data_json": str(folder / "my.json"), "data_images": str(folder)}
    return load_experiment(Path(f"{EXPERIMENT}:lora"), given=given)


def test_rows_are_cut_and_written_as_the_run_is_asked(folder, monkeypatch):
    """They kept the one view and the room for images to draw of the drawing's rows, at which the first step broke."""
    monkeypatch.chdir(folder)
    config = of_drawing(folder)
    assert config.data.asking == Asking(VIEWS, STYLE) and (config.data.target_px, config.data.asked) == (0, None)
    # An image of as many crops as there may be leaves room for its answer.
    row, most = config.data.row, VIEWS.max_crops
    assert row.length >= 2 * most * row.vision_tokens and row.crops >= most and row.segments > 2
    assert type(config.model) is VLMConfig
    program = assemble(config, make_mesh(MeshConfig(), jax.devices()[:1]))
    assert not set(PARTS) & set(program.abstract.params)
    with contextlib.closing(config.objective.batches(config.model, config.data, 0, State(), 0, 1)) as batches:
        rows = next(batches)[0]
    assert rows.loss_mask.any() and int(np.max(rows.crop_image)) >= 0
    assert (np.sum(rows.crop_image >= 0) / (rows.image_grid[..., 0] > 0).sum()) > 1


@pytest.mark.slow
def test_what_was_fine_tuned_answers(folder, monkeypatch):
    monkeypatch.chdir(folder)
    start = ("--initialize.run", "draw", "--data.json", "my.json", "--data.images", ".", "--workdir", "run")
    steps = ("--steps", "2", "--optimizer.warmup-steps", "1", "--data.batch-rows", "8")
    assert main(["train", f"{EXPERIMENT}:lora", *start, *steps]) == 0
    model = xgenmm_jax.load("run", mesh=make_mesh(MeshConfig(), jax.devices()[:1]))
    assert set(model.params) == {"vision", "connector", "decoder"}
    assert len(model.generate(["What is it?"], images=[["0.png"]], max_new_tokens=3)) == 1
