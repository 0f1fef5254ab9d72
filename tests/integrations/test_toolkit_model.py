"""A run as toolkits use it: the evaluation's prompts, answers in order, images decoded when they are needed."""

from types import SimpleNamespace

import answering
import PIL.Image
import pytest

from xgenmm_jax.api.processor import Processor
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.prompts import Prompt, message_prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.integrations import toolkit_model
from xgenmm_jax.integrations.toolkit_model import ToolkitModel
from xgenmm_jax.integrations.toolkit_requests import AnswerSettings, UserTurn
from xgenmm_jax.nano.starting_weights import TOKENIZER


class Recording(answering.AnsweringModel):
    """Answers with what `answer` gives; keeps the decoding of each call."""

    def __init__(self, answer):
        super().__init__(answer)
        self.decodings: list[Decoding] = []

    def generate(self, prompts, decoding, *, anyres=None):
        self.decodings.append(decoding)
        return super().generate(prompts, decoding, anyres=anyres)


def model(generator) -> ToolkitModel:
    processor = Processor(Tokenizer.load(TOKENIZER), AnyRes(), official_images=True)
    return ToolkitModel(SimpleNamespace(processor=processor, generator=lambda limits: generator))


def numbered(number: int):
    return lambda: Prompt((number,), ())


def test_a_message_becomes_the_evaluations_prompt():
    tokenizer = Tokenizer.load(TOKENIZER)
    picture = PIL.Image.new("RGB", (8, 6), "red")
    message = UserTurn(("Is <image> in ", 0, "?<|end|>"), (picture,))
    made = model(Recording(str)).prompt(message)
    assert made.token_ids == message_prompt(message.parts, made.images, tokenizer).token_ids
    assert made.token_ids.count(tokenizer.image_id) == 1
    assert made.token_ids.count(tokenizer.end_id) == 2
    assert [image.size_px for image in made.images] == [(8, 6)]


def test_the_toolkits_system_turn_replaces_the_models():
    made = model(Recording(str)).prompt(UserTurn(("Hi",), (), "Be brief."))
    text = Tokenizer.load(TOKENIZER).decode(made.token_ids)
    assert "Be brief." in text and "curious" not in text


def test_decoded_images_are_let_go_and_asked_for_again():
    asked = []

    def opened() -> UserTurn:
        asked.append(1)
        return UserTurn((0, "and", 1), (PIL.Image.new("RGB", (8, 6), "red"), PIL.Image.new("RGB", (4, 4), "blue")))

    made = model(Recording(str)).lazy_prompt(opened)
    assert len(asked) == 1
    assert [image.size_px for image in made.images] == [(8, 6), (4, 4)]
    assert made.images[1].load().getpixel((0, 0)) == (0, 0, 255)
    assert len(asked) == 2


def test_answers_come_in_the_requests_order_and_are_cut_at_the_first_stop():
    generator = Recording(lambda prompt: f"answer {prompt.token_ids[0]}\n\nmore, and B")
    short, long = AnswerSettings(Decoding(4), ("\n\n",)), AnswerSettings(Decoding(8), (",", "B"))
    wanted = [short, long, short, AnswerSettings(Decoding(8))]
    moved: list[int] = []
    answers = model(generator).answers([numbered(number) for number in range(4)], wanted, moved.append)
    assert answers == ["answer 0", "answer 1\n\nmore", "answer 2", "answer 3\n\nmore, and B"]
    # One call for each decoding, whatever stops the answers have.
    assert [[prompt.token_ids[0] for prompt in call] for call in generator.calls] == [[0, 2], [1, 3]]
    assert moved == [2, 2]


def test_calls_of_sampled_answers_draw_other_numbers(monkeypatch: pytest.MonkeyPatch):
    """A request that lmms-eval repeats would get the same answer in the same place of the next call."""
    monkeypatch.setattr(toolkit_model, "CHUNK", 2)
    generator = Recording(lambda prompt: "")
    wanted = [AnswerSettings(Decoding(4, temperature=1.0, seed=7))] * 5
    model(generator).answers([numbered(0)] * 5, wanted)
    assert [decoding.seed for decoding in generator.decodings] == [7, 8, 9]
