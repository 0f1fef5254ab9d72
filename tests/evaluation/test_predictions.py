"""Files of predictions."""

import json

from answering import AnsweringModel, counting
import pytest

from xgenmm_jax.evaluation import predictions
from xgenmm_jax.evaluation.predictions import Prediction, write_predictions
from xgenmm_jax.evaluation.runner import evaluate

TASKS = [counting("digits/small", 8)]


def answered(text: str) -> tuple[Prediction, ...]:
    return evaluate(AnsweringModel(lambda prompt: text), TASKS).predictions


def test_a_line_holds_a_prediction_and_gives_it_back():
    (one, *_) = answered("Größe\n5")
    line = json.loads(json.dumps(one.to_json()))
    assert list(line) == ["measure", "id", "question", "truth", "answer", "score"]
    read = Prediction.from_json(line)
    assert read.to_json() == line
    assert (read.task, read.text, read.example.answers) == ("digits/small", "Größe\n5", ("0",))


def test_images_of_a_few_right_and_a_few_wrong_answers_are_kept(tmp_path):
    write_predictions(answered("0"), tmp_path, examples=4)
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line.get("pictures") for line in lines[:4]] == [
        ["examples/digits-small-right-1-0.png"],
        ["examples/digits-small-wrong-1-0.png"],
        ["examples/digits-small-wrong-2-0.png"],
        None,
    ]
    assert len(lines) == 8 and len(list((tmp_path / "examples").iterdir())) == 3


def test_answers_are_replaced_when_all_are_written(tmp_path, monkeypatch):
    """A kill leaves one whole evaluation, the new or the old; images of the old go with their answers."""
    write_predictions(answered("0"), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    lines = iter([json.dumps] * 3)
    with monkeypatch.context() as full, pytest.raises(StopIteration):
        full.setattr(predictions.json, "dumps", lambda line: next(lines)(line))  # the disk holds three of them
        write_predictions(answered("?"), tmp_path)
    assert (tmp_path / "answers.jsonl").read_bytes() == before.pop("answers.jsonl")
    assert {path.name: path.read_bytes() for path in (tmp_path / "examples").iterdir()} == before
    write_predictions(answered("?"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"answers.jsonl", "examples"}
    assert all("wrong" in path.name for path in (tmp_path / "examples").iterdir())
