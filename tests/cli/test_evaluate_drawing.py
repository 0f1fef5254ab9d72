"""Pictures for the benchmarks of drawing, by a run that draws."""

import json

import drawing_cases as cases
import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.cli import evaluate, evaluate_drawing
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.images.drawer import Drawer
from xgenmm_jax.nano.starting_weights import TOKENIZER


class Run:
    """A model that draws, without a run folder."""

    def __init__(self):
        model = cases.model()
        self._drawer = Drawer(
            model, cases.params(model), Tokenizer.load(TOKENIZER), cases.PROMPT, ChatStyle(system=None), 96
        )
        self.drawn: list[str] = []

    def drawer(self):
        return self

    def draw(self, prompts, *rest):
        self.drawn += prompts
        return self._drawer.draw(prompts, *rest)


@pytest.fixture(scope="module")
def run() -> Run:
    return Run()


def pixels(path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_a_benchmark_is_drawn_and_gone_on_with(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xgenmm_jax.api.load", lambda _: run)
    steps = iter(["run step 4", "run step 4", "run step 8"])
    monkeypatch.setattr("xgenmm_jax.training.runs.fingerprints.of_model", lambda _: next(steps))
    lines = [{"tag": "colors", "include": [], "prompt": f"a {color} star"} for color in ("red", "blue", "green")]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "evaluation_metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = [str(tmp_path / "run"), "--tasks", "geneval", "--data", str(tmp_path / "data"), "--output", str(tmp_path)]
    assert evaluate.main(words) == 0
    assert "geneval: 3 prompts drawn" in capsys.readouterr().out
    pictures = sorted((tmp_path / "geneval").glob("*/samples/*.png"))
    assert len(pictures) == 12
    first = pixels(pictures[4])
    assert first.shape == (64, 64, 3)
    # Without one of them it draws that one alone, and draws the same.
    pictures[4].unlink()
    run.drawn.clear()
    assert evaluate.main(words) == 0 and run.drawn == ["a blue star"]
    assert np.abs(pixels(pictures[4]) - first).max() <= 1
    # A run that trained on would have left its pictures beside those of the earlier step.
    pictures[4].unlink()
    with pytest.raises(ValueError, match="holds pictures of model 'run step 4', now 'run step 8'; give another folder"):
        evaluate.main(words)
    assert not pictures[4].is_file()


def test_what_is_asked_and_what_is_drawn_are_two_commands():
    assert evaluate_drawing.asked_for("mmstar,pope") is None
    assert evaluate_drawing.asked_for("dpg, geneval") == ["geneval", "dpg"]
    with pytest.raises(ValueError, match="geneval, which are drawn, together with pope"):
        evaluate_drawing.asked_for("geneval,pope")


def test_data_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="--data: give the folder"):
        evaluate.main([str(tmp_path), "--tasks", "geneval"])
