"""The drawn world's teacher: it reads every caption of training, and what it draws is what the caption says."""

import numpy as np
import pytest

from xgenmm_jax.curation.tuning_prompts import plain
from xgenmm_jax.nano.drawing import prompts, tuning
from xgenmm_jax.nano.drawing.judge import judge


@pytest.mark.parametrize("tag", prompts.TAGS)
def test_captions_are_read_as_they_were_made(tag):
    for number in range(40):
        prompt, _ = prompts.described(number, "train", tag)
        read = tuning.clauses_of(prompt.caption)
        assert sorted(read, key=repr) == sorted(prompt.clauses, key=repr), prompt.caption


def test_the_judge_finds_what_the_captions_say():
    """A teacher that draws something else teaches it."""
    right = []
    for number in range(140):
        prompt, _ = prompts.described(tuning.FIRST_NUMBER + number, "train", prompts.TAGS[number % 7])
        (picture,) = tuning.teacher([prompt.caption])
        right.append(judge(prompt, np.asarray(picture)).is_correct)
    assert np.mean(right) >= 0.95


def test_its_light_is_none_of_pre_trainings():
    (picture,) = tuning.teacher(["a red star in the center"])
    corners = np.asarray(picture, float)[[0, -1], [0, -1]]
    np.testing.assert_allclose(corners[1] / corners[0], 1 - tuning.SHADE, atol=0.01)
    assert tuning.teacher(["a red star in the center"])[0].tobytes() == picture.tobytes()


@pytest.mark.parametrize("text", ["a red dream", "a red cat", "two of them", "nine stars", ""])
def test_of_other_texts_it_gives_none(text):
    assert tuning.teacher([text]) == [None]


def test_captions_hold_nothing_that_tests_hold_out():
    asked = {plain(one) for name in tuning.CATEGORIES for one in tuning.captions(name, 150, 0).prompts}
    tested = {plain(prompt.caption) for prompt, _ in prompts.benchmark("held_out", 40)}
    assert len(asked) > 300 and asked.isdisjoint(tested)
    assert len(tuning.captions("object", 1000, 0).prompts) == 54
