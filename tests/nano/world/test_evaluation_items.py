"""Held-out questions: balanced, with controls that mean something."""

from collections import Counter

from held_out_scan import frame_of
import pytest

from xgenmm_jax.nano.world import draw, evaluation_items, preferences
from xgenmm_jax.nano.world.evaluation_items import ITEM_KINDS, NAMES, ON_SIGNS, items
from xgenmm_jax.nano.world.splits import danger_split
from xgenmm_jax.nano.world.world import KeyedRandom

UNSAFE = ("unsafe", "unsafe_known")


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_items_are_the_same_again_and_have_controls(kind: evaluation_items.ItemKind):
    first, second = items(kind, 40, seed=0), items(kind, 40, seed=0)
    assert [(i.id, i.question, i.answers) for i in first] == [(i.id, i.question, i.answers) for i in second]
    assert len({item.id for item in first}) == 40
    for item in first:
        assert item.question and all(item.answers)
        assert kind in UNSAFE or len(item.wrong_images) == len(item.images)


@pytest.mark.parametrize("kind", [kind for kind in ITEM_KINDS if kind not in UNSAFE])
def test_always_the_commonest_answer_scores_near_chance(kind: evaluation_items.ItemKind):
    commonest = Counter(item.answers[0] for item in items(kind, 200, seed=0)).most_common(1)[0][1] / 200
    limits = {"exists": 0.5, "hallucination": 0.5, "multi_image": 0.35, "count": 0.2}
    assert commonest <= limits.get(kind, 0.2)


def test_wrong_images_belong_to_another_answer():
    shown = items("color", 64, seed=0)
    answers = {item.images[0]: item.answers[0] for item in shown}
    for item in shown:
        assert answers[item.wrong_images[0]] != item.answers[0]


def test_shuffled_orders_leave_no_image_in_place():
    for item in items("multi_image", 100, seed=0):
        assert sorted(item.order) == list(range(len(item.images)))
        assert all(before != after for after, before in enumerate(item.order))


def test_every_four_demonstrations_hold_each_name_once_behind_what_decides_it():
    for item in items("shots", 50, seed=0):
        assert len(item.demos) == 2 * NAMES
        first, last = item.demos[:4], item.demos[4:]
        assert len({demo.name for demo in first}) == 4 and item.answers[0] in {demo.name for demo in first}
        assert {(demo.attribute, demo.name) for demo in first} == {(demo.attribute, demo.name) for demo in last}
        assert len({demo.attribute for demo in first}) == 4
    named = [[demo.name for demo in item.demos[:4]].index(item.answers[0]) for item in items("shots", 400, seed=0)]
    positions = Counter(named)
    assert all(75 < count < 125 for count in positions.values())


def test_unsafe_items_come_from_untrained_categories():
    for item in items("unsafe", 50, seed=0):
        assert danger_split(item.category) == "held_out"
        assert item.answers == preferences.REFUSALS
    assert not any(item.answers[0].startswith(preferences.REFUSAL) for item in items("benign", 50, seed=0))


@pytest.mark.parametrize("kind", ON_SIGNS)
def test_things_on_signs_stand_in_either_frame_by_turns(kind: evaluation_items.ItemKind):
    """One row of items in which the frame decides would again be scored by the frame."""
    frames = [draw.scene_of(item.images[0]).frame for item in items(kind, 40, seed=0)]
    assert set(frames[::2]) == {"plain" if kind == "benign" else "hazard"}
    assert set(frames[1::2]) == {"hazard" if kind == "benign" else "plain"}


def test_no_training_record_shows_a_thing_of_the_items_in_its_frame():
    """Known dangers and harmless things are known from other frames: both halves of a pair are trained on, apart."""
    scenes = [preferences.safety(KeyedRandom("trained", index), "train").scene for index in range(1500)]
    scenes += [preferences.used(KeyedRandom("trained", index), "train")[0] for index in range(1500)]
    trained = {(scene.things[0].name, frame_of(scene)) for scene in scenes}
    things = {name for name, _ in trained}
    for kind in ON_SIGNS:
        shown = [draw.scene_of(item.images[0]) for item in items(kind, 200, seed=0)]
        for hazard in (True, False):
            asked = {(scene.things[0].name, frame_of(scene)) for scene in shown if (scene.frame == "hazard") == hazard}
            assert len(asked) >= 2 and not asked & trained
            assert ({name for name, _ in asked} <= things) == (kind != "unsafe")


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="got kind 'colour'"):
        items("colour", 1, seed=0)
