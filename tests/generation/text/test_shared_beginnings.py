"""Prompts that begin with the same images: computed once, and answered as each prompt alone."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_generator import BASE, GREEDY, GRIDS, by_the_whole_model, image, model_config, parameters

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.generation.text import schedule
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.generation.vision_tokens import UnreadableImage
from xgenmm_jax.models.token_sampling import TokenSampling

SYSTEM = "the red circle the red circle the red circle the red circle "


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    return tokenizer.train_tokenizer(["the red circle"] * 3, tmp_path_factory.mktemp("words") / "tokenizer.model", 400)


def make(words, limits=Limits(), anyres=GRIDS):  # noqa: B008
    config = model_config(words, TokenSampling.CROPS)
    return Generator(config, parameters(config), words, anyres, limits=limits, stop_ids=())


def questions(words) -> list[Prompt]:
    """Groups of 7, 3, 2 and 1 about one or two images, of one view and of three, and two questions without an image."""
    wide, tall, plain = image(1, (32, 16)), image(2, (16, 40)), image(3)
    groups = [((wide,), 7), ((tall, plain), 3), ((plain,), 2), ((plain, tall), 1), ((), 2)]
    prompts = []
    for images, count in groups:
        for number in range(count):
            text = SYSTEM + "<image> circle" * len(images) + " the" * (number + 1) + " red"
            prompts.append(Prompt(tuple(words.encode(text)), images))
    order = np.random.default_rng(0).permutation(len(prompts))
    return [prompts[index] for index in order]


@pytest.mark.parametrize(
    ("limits", "decoding"),
    [
        (Limits(), GREEDY),
        (Limits(rows=4), GREEDY),
        (Limits(rows=2, cache_mib=0, vision_mib=0), GREEDY),
        (Limits(rows=4), Decoding(6, temperature=1.0, seed=3)),
        pytest.param(Limits(rows=4), Decoding(6, num_beams=2), marks=pytest.mark.slow),
    ],
)
def test_answers_are_those_of_each_prompt_alone(words, monkeypatch, limits, decoding):
    """A prompt's random numbers depend on its place in the call, so the others' answers are those without sharing."""
    prompts = questions(words)
    shared = make(words, limits).generate_ids(prompts, decoding)
    if not decoding.temperature:
        assert shared == [make(words).generate_ids([prompt], decoding)[0] for prompt in prompts]
    monkeypatch.setattr(schedule, "LEAST_SAVED", 1.0)
    assert make(words, limits).generate_ids(prompts, decoding) == shared
    if decoding == GREEDY:
        config = model_config(words, TokenSampling.CROPS)
        assert shared[0] == by_the_whole_model(config, prompts[0], words, GRIDS)


def test_a_beginning_is_computed_once_and_each_image_encoded_once(words):
    """30 questions about each of 6 images, with a table of vision tokens that holds two of them."""
    images = [image(number) for number in range(6)]
    texts = [SYSTEM + "<image> circle" + " the" * (number % 5 + 1) + " red" for number in range(30)]
    prompts = [Prompt(tuple(words.encode(text)), (one,)) for text in texts for one in images]
    generator = make(words, Limits(rows=16, vision_mib=0), BASE)
    answers = generator.generate_ids(prompts, GREEDY)
    assert generator.computed.images == 6
    alone = make(words, Limits(rows=1), BASE)
    assert [alone.generate_ids([prompt], GREEDY)[0] for prompt in prompts] == answers
    assert generator.computed.positions < 0.6 * alone.computed.positions


def test_few_shared_positions_are_computed_with_each_prompt(words):
    prompts = [Prompt(tuple(words.encode("<image> red" + " the" * 30)), (image(number),)) for number in range(4)]
    expanded = [make(words)._expand(number, prompt, 0, BASE) for number, prompt in enumerate(prompts)]
    assert schedule.grouped(expanded, words.image_id, words.pad_id) is None


def test_an_image_that_cannot_be_read_leaves_the_others_right(words):
    """The table had slots for images of the same chunk that were never encoded."""

    def damaged():
        raise ValueError("image: 'x.png' is truncated or damaged; copy it again.")

    bad = LazyImage((16, 16), damaged)
    prompts = [Prompt(tuple(words.encode("<image> red")), (one,)) for one in (image(0), image(1), bad, image(4))]
    generator = make(words)
    with pytest.raises(UnreadableImage, match="truncated or damaged") as caught:
        generator.generate_ids(prompts, GREEDY)
    assert caught.value.image is bad
    readable = [prompt for prompt in prompts if prompt.images != (bad,)]
    assert generator.generate_ids(readable, GREEDY) == make(words).generate_ids(readable, GREEDY)


def test_a_changed_group_order_changes_no_answer(words):
    prompts = questions(words)
    answers = make(words).generate_ids(prompts, GREEDY)
    assert make(words).generate_ids(prompts[::-1], GREEDY) == answers[::-1]
    assert make(words).generate_ids([replace(prompt) for prompt in prompts], GREEDY) == answers
