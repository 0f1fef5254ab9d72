"""Drawing: batches, seeds, pixels, and what is refused."""

import drawing_cases as cases
import jax
import numpy as np
import pytest

from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.images.drawer import Drawer
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.nano.starting_weights import TOKENIZER

TWO_STEPS = Sampling(steps=2)
CAPTIONS = ["a red star", "a very very very very very blue ring at the top left", "a cat"]


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    model = cases.model()
    return make(model, cases.params(model))


def make(model, params, longest: int = 96) -> Drawer:
    return Drawer(model, params, Tokenizer.load(TOKENIZER), cases.PROMPT, ChatStyle(system=None), longest)


@jax.default_matmul_precision("highest")
def test_one_prompt_is_drawn_as_among_others(drawer):
    together = list(drawer.draw(CAPTIONS, 2, 5, TWO_STEPS))
    assert [one.prompt for one in together] == CAPTIONS
    for number, caption in enumerate(CAPTIONS):
        (alone,) = drawer.draw([caption], 2, 5, TWO_STEPS, first_number=number)
        np.testing.assert_allclose(alone.features, together[number].features, rtol=0, atol=2e-5)
        assert alone.images.shape == (2, 64, 64, 3) and alone.images.dtype == np.uint8
        assert np.abs(alone.images.astype(int) - together[number].images).max() <= 1


def test_a_seed_draws_the_same_and_another_one_something_else(drawer):
    (first,), (again,), (other,) = (list(drawer.draw(CAPTIONS[:1], 1, seed, TWO_STEPS)) for seed in (1, 1, 2))
    assert (first.features == again.features).all()
    assert np.abs(first.features - other.features).max() > 0.1


def test_more_images_than_a_batch_are_those_of_smaller_calls(drawer, monkeypatch):
    """A thousand images of one caption were sampled at once, in as much memory."""
    (expected,) = drawer.draw(CAPTIONS[:1], 5, 1, TWO_STEPS)
    monkeypatch.setattr("xgenmm_jax.generation.images.drawer.LARGEST_BATCH", 2)
    sampled = []
    monkeypatch.setattr(drawer, "_sample", lambda *args, inner=drawer._sample, **options: sampled.append(
        inner(*args, **options)) or sampled[-1])  # fmt: skip
    (drawn,) = drawer.draw(CAPTIONS[:1], 5, 1, TWO_STEPS)
    assert [len(features) for features in sampled] == [2, 2, 2]
    assert drawn.images.shape == expected.images.shape == (5, 64, 64, 3)
    np.testing.assert_allclose(drawn.features, expected.features, rtol=0, atol=2e-4)


def test_the_caption_is_heard(drawer):
    """The same noise under two captions becomes two things."""
    (one,) = drawer.draw(CAPTIONS[:1], 1, 1, TWO_STEPS)
    (other,) = drawer.draw(CAPTIONS[1:2], 1, 1, TWO_STEPS)
    assert np.abs(one.features - other.features).max() > 1e-3


@pytest.mark.parametrize(
    ("prompts", "words"),
    [([""], "say what to draw"), (["  "], "say what to draw"), (["star " * 99], "shorten it")],
)
def test_prompts_that_cannot_be_drawn_are_refused(drawer, prompts, words):
    with pytest.raises(ValueError, match=words):
        list(drawer.draw(prompts, 1, 0, TWO_STEPS))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1001}, {"guidance": -1.0}, {"guidance": float("nan")}])
def test_sampling_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="draw: got"):
        Sampling(**wrong)


def test_a_model_that_was_never_trained_to_draw_is_refused():
    model = cases.model()
    params = cases.params(model)
    params["target"] = jax.tree.map(np.zeros_like, params["target"])
    with pytest.raises(ValueError, match="no statistics yet"):
        make(model, params)
