"""Asking: order, batches, and what a kill leaves."""

import dataclasses

from answering import Answering, counting
import pytest

from xgenmm_jax.evaluation import runner
from xgenmm_jax.evaluation.runner import evaluate, predict
from xgenmm_jax.generation.text.decoding import Decoding


def number(prompt):
    return str(prompt.token_ids[0])


def test_predictions_are_in_the_order_of_tasks_and_examples():
    """Tasks of one limit are asked in one call, which does not change the order of what comes back."""
    tasks = [counting("a", 3), counting("b", 2, max_new_tokens=9), counting("c", 2)]
    model = Answering(number)
    evaluation = evaluate(model, tasks)
    assert [len(prompts) for prompts in model.calls] == [5, 2]
    expected = [(task.name, example) for task in tasks for example in task.examples]
    assert [(p.task, p.example) for p in evaluation.predictions] == expected
    assert evaluation.metrics == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_a_task_summarizes_its_scores():
    task = counting("a", 4)
    halves = dataclasses.replace(task, summarize=lambda predictions: {"a/right": sum(p.score for p in predictions)})
    model = Answering(lambda prompt: "1")
    assert evaluate(model, [task]).metrics == {"a": 0.25}
    assert evaluate(model, [halves]).metrics == {"a/right": 1.0}


def test_a_killed_evaluation_asks_only_what_is_left(tmp_path, monkeypatch):
    """The file after a kill and a second run is that of one run, and so are the predictions."""
    monkeypatch.setattr(runner, "CHUNK", 2)
    tasks = [counting("a", 5), counting("b", 3)]
    once = predict(Answering(number), tasks, tmp_path / "once.jsonl")

    def killed(prompt):
        if len(model.calls) == 3:
            raise KeyboardInterrupt
        return number(prompt)

    model = Answering(killed)
    file = tmp_path / "killed.jsonl"
    with pytest.raises(KeyboardInterrupt):
        predict(model, tasks, file)
    with file.open("a") as half_written:
        half_written.write('{"request": "a line that a ki')
    again = Answering(number)
    assert predict(again, tasks, file) == once
    assert sum(len(prompts) for prompts in again.calls) == 4
    assert file.read_text() == (tmp_path / "once.jsonl").read_text()


def test_answers_to_other_words_or_under_another_limit_are_asked_anew(tmp_path):
    file = tmp_path / "a.jsonl"
    task = counting("a", 2)
    predict(Answering(number), [task], file)
    longer = dataclasses.replace(task, decoding=Decoding(9))
    reworded = dataclasses.replace(
        task, prompt=lambda example, tokenizer: dataclasses.replace(task.prompt(example, tokenizer), token_ids=(7,))
    )
    for changed in (longer, reworded):
        model = Answering(lambda prompt: "new")
        assert [p.text for p in predict(model, [changed], file)] == ["new", "new"]


def test_answers_are_scored_anew_by_the_scorer_of_now(tmp_path):
    file = tmp_path / "a.jsonl"
    task = counting("a", 2)
    predict(Answering(number), [task], file)
    strict = dataclasses.replace(task, score=lambda text, example: 0.25)
    model = Answering(number)
    assert [p.score for p in predict(model, [strict], file)] == [0.25, 0.25]
    assert not model.calls


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"request": "1"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl': line 1 is no prediction; delete the file"):
        predict(Answering(number), [counting("a", 2)], file)


def test_names_that_stand_twice_are_refused():
    """Of two tasks of one name, one's answers would be the other's."""
    task = counting("a", 2)
    with pytest.raises(ValueError, match="two tasks are called a"):
        evaluate(Answering(number), [task, task])
    twice = dataclasses.replace(task, examples=(*task.examples, task.examples[0]))
    with pytest.raises(ValueError, match="two examples of a are called 0"):
        evaluate(Answering(number), [twice])
    with pytest.raises(ValueError, match="a has no examples"):
        evaluate(Answering(number), [dataclasses.replace(task, examples=())])
