"""BLIP-2's zero-shot tasks: published files, its prompts and decoding, scores as its code counts them."""

from answering import AnsweringModel
import few_shot_files
import pytest

from xgenmm_jax.cli import evaluate_benchmarks
from xgenmm_jax.data.readers.blip_captions import question_of
from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.evaluation import benchmark_runs, results
from xgenmm_jax.evaluation.paper_tables import BLIP2
from xgenmm_jax.evaluation.tasks import suites
from xgenmm_jax.evaluation.tasks.benchmark import Answering
from xgenmm_jax.evaluation.tasks.zero_shot import ZERO_SHOT
from xgenmm_jax.generation.text.decoding import Decoding


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    texts = ["Question: what is the dog in the street? Answer: a red dog"] * 3
    return tokenizer.train_tokenizer(texts, tmp_path_factory.mktemp("w") / "m", 420)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return few_shot_files.write(tmp_path_factory.mktemp("data"))


def asked(data, words, name, folder, answer):
    (benchmark,) = suites.named([name])
    (ready,) = benchmark_runs.load_all([benchmark], data)
    model = AnsweringModel(answer)
    model.tokenizer = words
    return benchmark_runs.ask(model, ready, folder, model="m"), model, ready


@pytest.mark.parametrize(
    ("name", "answer", "value"),
    [
        ("vqav2_blip2", "dog\nQuestion: what", 100.0),
        ("okvqa_blip2", "Dogs.\n", 100.0),
        ("coco_blip2", "a red dog 7\nAnswer", None),
        ("nocaps_blip2", "a thing 1", None),
    ],
)
def test_every_set_is_asked_behind_the_image_alone_and_scored(data, words, tmp_path, name, answer, value):
    result, model, ready = asked(data, words, name, tmp_path, lambda prompt: answer)
    (prompts,) = model.calls
    assert {len(prompt.images) for prompt in prompts} == {1} and result.value.items == len(prompts)
    texts = {words.decode(prompt.token_ids) for prompt in prompts}
    if value is None:
        assert texts == {"<image>"} and 0 < result.value.value < 1000
    else:
        assert "<image>Question: what is 8? Answer:" in texts and result.value.value == pytest.approx(value)
    assert ("stem" in result.value.note) == (name == "okvqa_blip2")
    assert model.stops == [(words.id_of("\n"),)], "an end token of the language model"
    assert results.read(tmp_path)[0].value.value == result.value.value and not ready.loaded.demonstrations


def test_gqa_is_equality_with_what_vqas_rules_leave_of_an_answer(data, words, tmp_path):
    """An answer that VQA's rules do not bring to the reference's form is wrong, as in BLIP-2's own code."""
    answers = {"is it overcast?": "No.", "who is wearing the dress?": "The woman", "chair": "chairs"}

    def answer(prompt):
        text = words.decode(prompt.token_ids)
        return next(value for part, value in answers.items() if part in text)

    result, model, ready = asked(data, words, "gqa_blip2", tmp_path, answer)
    assert [one.id for one in ready.loaded.examples] == ["201307251", "201640614", "202225914"]
    assert ready.loaded.left_out == {"not of this split": 1}
    assert {name: round(one.value, 4) for name, one in result.scores.items()} == {
        "accuracy": 66.6667, "binary": 50.0, "open": 100.0,
    }  # fmt: skip
    assert words.decode(model.calls[0][2].token_ids) == (
        "<image>Question: is the chair left or the bed brown? Answer:"
    )


def test_a_reference_of_two_words_is_kept_as_it_is_written(data, words, tmp_path):
    path = data / "gqa/testdev_balanced_questions.json"
    whole = path.read_text()
    path.write_text(whole.replace('"answer": "no"', '"answer": "T-shirt"'))
    result, _, _ = asked(data, words, "gqa_blip2", tmp_path, lambda prompt: "T-shirt")
    path.write_text(whole)
    assert result.value.value == 0


def test_questions_lose_marks_and_capitals_and_what_is_too_long():
    assert question_of('What (if any) is "it"?') == "what if any is it?"
    assert question_of('What, if any - is "it"?') == "what, if any - is it?"
    assert question_of("why? " * 60).split(" ") == ["why?"] * 50


def test_answers_are_written_as_the_paper_says():
    decoding = {one.name: one.answering("official").decoding for one in ZERO_SHOT}
    short = Decoding(10, 5, length_penalty=-1.0)
    assert decoding == {
        "vqav2_blip2": short, "okvqa_blip2": short, "gqa_blip2": short,
        "nocaps_blip2": Decoding(80, 5, min_new_tokens=10), "coco_blip2": Decoding(30, 5, min_new_tokens=8),
    }  # fmt: skip
    # No other benchmark's answers end otherwise than before, and what their files say of it is what it was.
    for one in suites.BENCHMARKS:
        answering = one.answering(one.profiles[0])
        assert answering.stops == (("\n",) if one in ZERO_SHOT else ()) and answering.stops in ((), answering.until)
        assert ("stops=" in repr(answering)) == (one in ZERO_SHOT)
    assert repr(Answering(Decoding(4), ("\n",))) == f"Answering(decoding={Decoding(4)!r}, until=('\\n',))"


def test_a_tokenizer_without_a_line_break_cuts_answers_and_says_so(data, words, tmp_path, monkeypatch):
    monkeypatch.setattr(words, "id_of", lambda text: None)
    result, model, ready = asked(data, words, "vqav2_blip2", tmp_path, lambda prompt: "dog\nQuestion: what")
    assert model.stops == [()] and result.value.value == pytest.approx(100)
    (sentence,) = evaluate_benchmarks.without_stops([ready], words)
    assert sentence.startswith("VQAv2, zero-shot as BLIP-2: '\\n' is no token of this model; answers are cut at it")
    monkeypatch.undo()
    assert not evaluate_benchmarks.without_stops([ready], words)


def test_the_papers_table_has_a_column_of_each():
    assert tuple(column.task for column in BLIP2.columns) == suites.TABLES["blip2"]


def test_a_file_of_the_test_split_is_refused(data, words, tmp_path):
    few_shot_files.write(tmp_path)
    path = tmp_path / "gqa/testdev_balanced_questions.json"
    path.write_text('{"1": {"question": "Is it?", "imageId": "n1", "isBalanced": true}}')
    with pytest.raises(ValueError, match=r"testdev_balanced_questions.json' has an entry without 'answer'; found"):
        benchmark_runs.load_all(suites.named(["gqa_blip2"]), tmp_path)
    path.write_text('{"1": ["Is it?"]}')
    with pytest.raises(ValueError, match=r"testdev_balanced_questions.json', entry 1: "):
        benchmark_runs.load_all(suites.named(["gqa_blip2"]), tmp_path)
