"""How examples are asked, and that published benchmarks have a form as tasks."""

from collections.abc import Sequence

from answering import AnsweringModel, image
import pytest

from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.prompts import Demonstration
from xgenmm_jax.evaluation import fewshot
from xgenmm_jax.evaluation.predictions import Metrics, Prediction
from xgenmm_jax.evaluation.runner import evaluate
from xgenmm_jax.evaluation.scorers import vqa
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.prompts import ChatPrompt, FewShotPrompt, MessagePrompt
from xgenmm_jax.evaluation.tasks.task import Task
from xgenmm_jax.generation.text.decoding import Decoding


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    return tokenizer.train_tokenizer(["Which image shows a cat?"] * 3, tmp_path_factory.mktemp("w") / "t.model", 400)


def test_images_stand_in_front_of_the_question_or_where_the_text_names_them(words):
    example = Example("1", (image(), image()), "Which image shows a cat?", ("2",))
    first = ChatPrompt(ChatStyle(None))(example, words)
    assert words.decode(first.token_ids) == "<|user|><image>\n<image>\nWhich image shows a cat?<|end|><|assistant|>"
    assert first.images == example.images
    between = ChatPrompt(ChatStyle(None), lambda example: f"<image>, then <image>: {example.question}")
    text = words.decode(between(example, words).token_ids)
    assert text == "<|user|><image>, then <image>: Which image shows a cat?<|end|><|assistant|>"


def test_demonstrations_stand_in_front_of_a_query(words):
    example = Example("1", (image(),), "What is it?", ("a dog",))
    demonstration = Demonstration(image("blue"), "What is this?", "a cat")
    prompt = FewShotPrompt(lambda example: [demonstration])(example, words)
    lines = words.decode(prompt.token_ids).split("\n")
    assert lines == [
        "<image>Question:What is this? Short answer:a cat<|endofchunk|>",
        "<image>Question:What is it? Short answer:",
    ]
    assert prompt.images == (demonstration.image, *example.images)
    in_words = FewShotPrompt(lambda example: [demonstration], text_only=True)(example, words)
    assert in_words.images == example.images
    assert words.decode(FewShotPrompt(caption=True)(example, words).token_ids) == "<image>Output:"


def options(example: Example) -> str:
    """VLMEvalKit's prompt of multiple choice."""
    letters = "".join(f"{letter}. {choice}\n" for letter, choice in example.options.items())
    ask = "Please select the correct answer from the options above. \n"
    return f"<image> Question: {example.question}\nOptions:\n{letters}{ask}"


def by_group(predictions: Sequence[Prediction]) -> Metrics:
    """A group of rotated options is right where all of them are."""
    groups: dict[str, list[float]] = {}
    for prediction in predictions:
        groups.setdefault(prediction.example.fields["group"], []).append(prediction.score)
    return {"mmbench/circular": sum(map(min, groups.values())) / len(groups)}


def test_multiple_choice_in_rotated_order_is_a_task(words):
    choices = ("cat", "dog", "None")
    examples = [
        Example(
            str(k), (image(),), "What is it?", ("ABC"[-k % 3],),
            options=dict(zip("ABC", (*choices[k:], *choices[:k]), strict=True)), fields={"group": "0"},
        )
        for k in range(3)
    ]  # fmt: skip
    letter = lambda text, example: float(text in example.answers)  # noqa: E731
    task = Task("mmbench", examples, ChatPrompt(text=options), letter, Decoding(16), summarize=by_group)
    asked = AnsweringModel(lambda prompt: "A")
    asked.tokenizer = words
    assert evaluate(asked, [task]).metrics == {"mmbench/circular": 0.0}
    text = words.decode(asked.calls[0][1].token_ids)
    assert "Options:\nA. dog\nB. None\nC. cat\nPlease" in text
    assert [example.answers for example in examples] == [("A",), ("C",), ("B",)]


def test_few_shot_vqa_with_ten_answers_is_a_task(words):
    """TextVQA: demonstrations drawn by the query's id, answers cut where the model goes on, ten people's answers."""
    pool = [Example(f"train/{n}", (image(),), f"What is {n}?", (str(n),)) for n in range(8)]

    def demonstrations(example: Example) -> list[Demonstration]:
        chosen = fewshot.choose_demonstrations(example, pool, 4, seed=42)
        return [Demonstration(shown.images[0], shown.question, shown.answers[0]) for shown in chosen]

    def score(text: str, example: Example) -> float:
        return vqa.vqa_accuracy(fewshot.cut_answer(text), example.answers)

    example = Example("val/0", (image(),), "What is it?", ("Stop",) * 2 + ("halt",) * 8)
    task = Task("textvqa", [example], FewShotPrompt(demonstrations), score, Decoding(10))
    model = AnsweringModel(lambda prompt: "stop Question:What is")
    model.tokenizer = words
    evaluation = evaluate(model, [task])
    assert evaluation.metrics == {"textvqa": pytest.approx((2 * (1 / 3) + 8 * (2 / 3)) / 10)}
    assert len(evaluation.predictions[0].prompt.images) == 5


def test_a_message_has_its_images_where_they_stand_and_its_texts_as_they_are(words):
    """An `<image>` in a benchmark's text is text; an image may come twice, another not at all."""
    example = Example("0", (image("red"), image("blue"), image("green")), "", ())
    prompt = MessagePrompt(lambda example: ("See", 1, "then <image> and", 0, 1), ChatStyle(system=None))(example, words)
    assert prompt.images == (example.images[1], example.images[0], example.images[1])
    assert prompt.token_ids.count(words.image_id) == 3
    text = words.decode(prompt.token_ids)
    assert text == "<|user|>See<image> then <image> and<image> <image> <|end|><|assistant|>"
    with pytest.raises(ValueError, match="got image 3 of 3 images"):
        MessagePrompt(lambda example: (3,))(example, words)
