"""Suites as a run's config keeps them."""

import pytest

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.evaluation.tasks.suite import InputFormat, Suite, UnloadedSuite
from xgenmm_jax.nano.tasks import DrawnWorld
from xgenmm_jax.training.config_json import from_json, to_json

ASKED = InputFormat(ChatStyle(), "few_shot", AnyRes())


def test_a_suite_survives_json():
    suites = (DrawnWorld(groups=("caption",), items=3, seed=2),)
    assert from_json(to_json(suites), tuple[Suite, ...]) == suites


def test_a_suite_of_a_users_file_is_kept_and_not_executed():
    settings = {"class": "experiment_mine:Mine", "from": {"file": "mine.py", "sha256": "0" * 64}, "items": 3}
    (suite,) = from_json([settings], tuple[Suite, ...])
    assert isinstance(suite, UnloadedSuite) and to_json(suite) == settings
    with pytest.raises(ValueError, match="'experiment_mine:Mine' needs a file of yours"):
        suite.tasks(ASKED)


def test_drawn_items_are_asked_as_the_model_was_trained():
    suite = DrawnWorld(groups=("shots", "multi_image"), items=2, shot_items=2)
    assert {task.name.split("/")[0] for task in suite.tasks(ASKED)} == {"shots"}
