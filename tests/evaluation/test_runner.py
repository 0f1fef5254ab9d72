"""Asking: order, batches, and what a kill leaves."""

import dataclasses

from answering import AnsweringModel, counting, image
import pytest

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.evaluation import runner
from xgenmm_jax.evaluation.prediction_files import Head
from xgenmm_jax.evaluation.runner import evaluate, predict, predict_into
from xgenmm_jax.evaluation.tasks.task import Scored
from xgenmm_jax.nano.starting_weights import TOKENIZER


def number(prompt):
    return str(prompt.token_ids[0])


def test_predictions_are_in_the_order_of_tasks_and_examples():
    """Tasks of one limit are asked in one call, which does not change the order of what comes back."""
    tasks = [counting("a", 3), counting("b", 2, max_new_tokens=9), counting("c", 2)]
    model = AnsweringModel(number)
    evaluation = evaluate(model, tasks)
    assert [len(prompts) for prompts in model.calls] == [5, 2]
    expected = [(task.name, example) for task in tasks for example in task.examples]
    assert [(p.task, p.example) for p in evaluation.predictions] == expected
    assert evaluation.metrics == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_a_task_summarizes_its_scores():
    task = counting("a", 4)
    halves = dataclasses.replace(task, summarize=lambda predictions: {"a/right": sum(p.score for p in predictions)})
    model = AnsweringModel(lambda prompt: "1")
    assert evaluate(model, [task]).metrics == {"a": 0.25}
    assert evaluate(model, [halves]).metrics == {"a/right": 1.0}


def test_tasks_whose_answers_end_otherwise_are_asked_apart():
    model = AnsweringModel(lambda prompt: "1\n2")
    model.tokenizer = Tokenizer.load(TOKENIZER)
    line = dataclasses.replace(counting("b", 2), until=("\n",), stops=("\n", "no single token"))
    result = evaluate(model, [counting("a", 2), line, counting("c", 3)])
    assert [len(prompts) for prompts in model.calls] == [5, 2]
    assert model.stops == [(), (model.tokenizer.id_of("\n"),)]
    assert [one.text for one in result.predictions if one.task == "b"] == ["1", "1"]


HEAD = Head("a", 1, "paper", "careful", "none", "a model", "examples", 5, "greedy")


def test_a_killed_evaluation_asks_only_what_is_left_and_leaves_the_same_file(tmp_path, monkeypatch):
    """Killed in a chunk, between two, or inside a line: a chunk of which a part is there is asked whole."""
    monkeypatch.setattr(runner, "CHUNK", 2)
    task = counting("a", 5)
    once = predict_into(AnsweringModel(number), task, tmp_path / "once.jsonl", HEAD)
    whole = (tmp_path / "once.jsonl").read_bytes()
    assert once == predict(AnsweringModel(number), [task])
    for kept in (*range(0, len(whole), 37), len(whole)):
        file = tmp_path / "killed.jsonl"
        file.write_bytes(whole[:kept])
        lines = whole[:kept].count(b"\n")
        again = AnsweringModel(number)
        assert predict_into(again, task, file, HEAD) == once
        assert file.read_bytes() == whole
        assert [len(prompts) for prompts in again.calls] == [2, 2, 1][max(lines - 1, 0) // 2 + (lines == 6) :]


def test_predictions_of_a_run_that_was_renamed_are_gone_on_with(tmp_path):
    """The name of its folder was compared as if it were of the parameters."""
    file, head = tmp_path / "a.jsonl", dataclasses.replace(HEAD, model="run step 400 1f3a90c2")
    predict_into(AnsweringModel(number), counting("a", 5), file, head)
    again = AnsweringModel(number)
    predict_into(again, counting("a", 5), file, dataclasses.replace(head, model="old_run step 400 1f3a90c2"))
    assert not again.calls
    with pytest.raises(ValueError, match="holds predictions of model 'run step 400 1f3a90c2', now 'run step 400 ffff"):
        predict_into(again, counting("a", 5), file, dataclasses.replace(head, model="run step 400 ffffffff"))


@pytest.mark.parametrize(
    "field", ["task", "version", "profile", "reading", "reencode", "model", "examples", "decoding"]
)
def test_predictions_of_something_else_are_refused(tmp_path, field):
    file = tmp_path / "a.jsonl"
    predict_into(AnsweringModel(number), counting("a", 5), file, HEAD)
    before = file.read_bytes()
    other = dataclasses.replace(HEAD, **{field: 7 if field == "version" else "other"})
    model = AnsweringModel(number)
    with pytest.raises(ValueError, match=f"a.jsonl' holds predictions of {field} .*now .*--output"):
        predict_into(model, counting("a", 5), file, other)
    assert not model.calls and file.read_bytes() == before


def test_answers_are_scored_anew_by_the_scorer_of_now(tmp_path):
    file = tmp_path / "a.jsonl"
    predict_into(AnsweringModel(number), counting("a", 5), file, HEAD)
    strict = dataclasses.replace(counting("a", 5), score=lambda text, example: Scored(0.25, None))
    model = AnsweringModel(number)
    predictions = predict_into(model, strict, file, HEAD)
    assert [(p.score, p.extracted) for p in predictions] == [(0.25, None)] * 5
    assert not model.calls


def test_an_image_that_cannot_be_read_costs_its_examples_alone(tmp_path):
    """Found when the model is asked, once; the answer counts as wrong, the file says why, and is not asked again."""
    task = counting("a", 4)

    def damaged():
        raise ValueError("image: 'x' is truncated or damaged")

    broken = dataclasses.replace(task.examples[2], images=(LazyImage((8, 8), damaged),))
    task = dataclasses.replace(task, examples=(*task.examples[:2], broken, task.examples[3]))
    sizes = []

    def look(prompts):
        sizes.extend(image.load().size for prompt in prompts for image in prompt.images)

    model = AnsweringModel(number, before=look)
    predictions = predict_into(model, task, tmp_path / "a.jsonl", HEAD)
    assert [len(prompts) for prompts in model.calls] == [4] and sizes == [(8, 8)] * 4
    assert [p.score for p in predictions] == [1.0, 1.0, 0.0, 1.0]
    assert (predictions[2].text, predictions[2].extracted) == ("", None)
    assert "truncated" in predictions[2].example.unreadable
    again = AnsweringModel(number)
    assert predict_into(again, task, tmp_path / "a.jsonl", HEAD) == predictions
    assert not again.calls


def test_questions_about_one_image_stand_in_one_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "CHUNK", 3)
    task = counting("a", 6)
    shared = image()
    examples = tuple(
        dataclasses.replace(one, images=(shared,)) if index in (0, 4) else one
        for index, one in enumerate(task.examples)
    )
    model = AnsweringModel(number)
    predict_into(model, dataclasses.replace(task, examples=examples), tmp_path / "a.jsonl", HEAD)
    assert [[prompt.token_ids[0] for prompt in prompts] for prompts in model.calls] == [[0, 4, 1], [2, 3, 5]]


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"request": "1"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl': line 1 is no prediction .*wanted a JSON object with"):
        predict_into(AnsweringModel(number), counting("a", 2), file, HEAD)


def test_names_that_stand_twice_are_refused():
    """Of two tasks of one name, one's answers would be the other's."""
    task = counting("a", 2)
    with pytest.raises(ValueError, match="two tasks are called a"):
        evaluate(AnsweringModel(number), [task, task])
    twice = dataclasses.replace(task, examples=(*task.examples, task.examples[0]))
    with pytest.raises(ValueError, match="two examples of a are called 0"):
        evaluate(AnsweringModel(number), [twice])
    with pytest.raises(ValueError, match="a has no examples"):
        evaluate(AnsweringModel(number), [dataclasses.replace(task, examples=())])
