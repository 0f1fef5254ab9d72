"""`xgenmm draw`, and what is wrong about a drawing part in `train` and `convert`: a sentence each, and no file."""

from pathlib import Path
import re

import blip3o_goldens as goldens
import drawing_cases
import PIL.Image
import pytest

from xgenmm_jax.cli import main as cli

GRIDS = """
from dataclasses import replace
from experiments.nano import draw

def config():
    base = draw.config()
    pixels = replace(base.model.drawing.pixels, grid={grid}, channels={channels})
    return replace(base, model=replace(base.model, drawing=replace(base.model.drawing, pixels=pixels)))

def queries():
    base = draw.config()
    return replace(base, model=replace(base.model, drawing=replace(base.model.drawing, queries=9)))

def imported():
    base = draw.config()
    # Its own part that draws too, which the stage draws anew.
    return replace(base, initialize=replace(base.initialize, run="imported", fresh=()))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def drawing_run(tmp_path_factory):
    return drawing_cases.saved(tmp_path_factory.mktemp("runs") / "drawing")


def refused(capsys, folder: Path, *words: str) -> str:
    """The one line that a command leaves, which wrote nothing."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    try:
        code = cli.main(list(words))
    except SystemExit as exit_:
        code = exit_.code
    told = capsys.readouterr()
    assert code in (1, 2) and told.err.count("\n") == 1 and sorted(folder.rglob("*")) == before, told.err
    return told.err


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["nowhere", ""], "got an empty prompt; say what to draw"),
        (["nowhere", "  "], "got an empty prompt; say what to draw"),
        (["nowhere", "a star", "--steps", "0"], "got steps 0, wanted 1 to 1000"),
        (["nowhere", "a star", "--steps", "1001"], "got steps 1001, wanted 1 to 1000"),
        (["nowhere", "a star", "--steps", "2.5"], "--steps: got '2.5', wanted a whole number"),
        (["nowhere", "a star", "--guidance", "-1"], "got guidance -1.0, wanted 0 to 100"),
        (["nowhere", "a star", "--guidance", "nan"], "got guidance nan, wanted 0 to 100"),
        (["nowhere", "a star", "--guidance", "1000"], "got guidance 1000.0, wanted 0 to 100"),
        (["nowhere", "a star", "-n", "0"], "-n: got 0, wanted 1 to 1024"),
        (["nowhere", "a star", "--seed", "-1"], "--seed: got -1, wanted 0 or more"),
        (["nowhere", "a star"], "no file or folder 'nowhere'"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(folder, capsys, words, sentence):
    assert sentence in refused(capsys, folder, "draw", *words, "-o", "star.png")


@pytest.mark.parametrize("name", ["star.tiff", "star", "there"])
def test_a_file_that_cannot_be_written_is_told_before_drawing(folder, capsys, name):
    (folder / "there").mkdir()
    assert "--output" in refused(capsys, folder, "draw", "nowhere", "a star", "-o", name)


def test_a_run_without_a_drawing_part_is_told(folder, capsys, run):
    said = refused(capsys, folder, "draw", str(run), "a red star", "-o", "star.png")
    assert said.startswith("xgenmm draw: the run has no drawing part; give one that was trained to draw")
    said = refused(capsys, folder, "convert", str(run), "out", "--to", "blip3o")
    assert "the run has no diffusion transformer; choose another --to" in said


def experiment(folder: Path, grid: int = 4, channels: int = 96) -> str:
    (folder / "mine.py").write_text(GRIDS.format(grid=grid, channels=channels))
    return str(folder / "mine.py")


@pytest.mark.parametrize("changed", [{"grid": 2}, {"channels": 64}])
def test_a_pixel_decoder_of_another_grid_is_told_before_training(folder, capsys, changed):
    said = refused(capsys, folder, "train", experiment(folder, **changed), "--workdir", "run")
    grid, channels = changed.get("grid", 4), changed.get("channels", 96)
    assert f"a decoder of {grid} x {grid} cells of {channels} channels for a target of 4 x 4 of 96" in said


def test_rows_that_ask_with_other_queries_are_told_before_training(folder, capsys):
    said = refused(capsys, folder, "train", f"{experiment(folder)}:queries", "--workdir", "run")
    assert "asks with 16 queries (DrawingPrompt), the model has 9" in said


@pytest.mark.slow
def test_released_weights_of_another_width_are_told_before_training(folder, capsys):
    words = ["--vision-heads", str(goldens.TOWER_HEADS)]
    assert cli.main(["convert", str(goldens.MODEL), "imported", *words]) == 0
    said = refused(capsys, folder, "train", f"{experiment(folder)}:imported", "--workdir", "run")
    assert "imported" in said and re.search(r"drawing/\S+ has [\d x]+ for [\d x]+", said)


@pytest.mark.slow
def test_images_are_files_with_numbers(folder, capsys, drawing_run):
    words = ["draw", str(drawing_run), "a red star", "--steps", "1", "--seed", "3", "-n", "2", "-o"]
    assert cli.main([*words, "star.png"]) == 0
    assert capsys.readouterr().out.split() == ["star.png", "star-2.png"]
    first, second = (PIL.Image.open(name) for name in ("star.png", "star-2.png"))
    assert first.size == second.size == (64, 64) and first.tobytes() != second.tobytes()
    assert "shorten it" in refused(capsys, folder, "draw", str(drawing_run), "star " * 999, "-o", "long.png")
