"""A damaged picture found while a real model is asked: its question is wrong, all others are as if it were whole."""

import dataclasses

import pytest
from tiny_generator import GRIDS, image, model_config, parameters

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.evaluation.runner import predict
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Task
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.models.token_sampling import TokenSampling


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    return tokenizer.train_tokenizer(["the red circle"] * 3, tmp_path_factory.mktemp("words") / "tokenizer.model", 400)


def damaged(size_px: tuple[int, int]) -> LazyImage:
    def load():
        raise ValueError("image: 'x.png' is truncated or damaged; copy it again.")

    return LazyImage(size_px, load)


def answers(words, examples) -> list[tuple[str, str, bool]]:
    """Sampled, so that an answer depends on the place of its prompt in the call as well."""

    def prompt(example, tokenizer):
        text = "<image> circle" * len(example.images) + " the" * int(example.id) + " red"
        return Prompt(tuple(words.encode(text)), example.images)

    config = model_config(words, TokenSampling.CROPS)
    model = Generator(config, parameters(config), words, GRIDS, limits=Limits(rows=2), stop_ids=())
    batches = []
    model._before_batch = lambda: batches.append(1)
    task = Task("a", examples, prompt, lambda answer, example: 1.0, Decoding(6, temperature=1.0, seed=3))
    predictions = predict(model, [task])
    assert len(batches) == 4
    return [(one.example.id, one.text, bool(one.example.unreadable)) for one in predictions]


@pytest.mark.parametrize("as_demonstration", [False, True])
def test_other_answers_are_those_of_an_undamaged_set(words, as_demonstration):
    """All were asked again without it, in other batches and by other random numbers."""
    images = [image(number, (32, 16)) for number in range(7)]
    examples = [Example(str(number), (one,), "What?", ("",)) for number, one in enumerate(images)]
    if as_demonstration:
        examples[4] = dataclasses.replace(examples[4], images=(image(9), images[4]))
    whole = answers(words, examples)
    broken = (damaged((32, 16)),) if not as_demonstration else (damaged(image(9).size_px), images[4])
    examples[4] = dataclasses.replace(examples[4], images=broken)
    assert answers(words, examples) == [*whole[:4], ("4", "", True), *whole[5:]]
