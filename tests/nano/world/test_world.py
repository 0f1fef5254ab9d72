"""Scenes and how they are painted."""

import pickle

import numpy as np
import pytest

from xgenmm_jax.evaluation.scorers import boxes
from xgenmm_jax.nano.world import draw, language, pages, scenes, world
from xgenmm_jax.nano.world.world import BASE_PX, KeyedRandom

MAKERS = (scenes.shapes, scenes.text, scenes.objects, scenes.digit, scenes.mixed)


@pytest.mark.parametrize("make", MAKERS)
def test_things_lie_inside_the_image_and_where_their_place_says(make):
    for index in range(300):
        scene = make(KeyedRandom("world", index), "train")
        for thing in scene.things:
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= BASE_PX and 0 <= top < bottom <= BASE_PX, thing
            assert world.position_of(thing.box, scene.size_px) == thing.position, thing


@pytest.mark.parametrize("make", MAKERS)
def test_paint_stays_inside_the_boxes(make):
    """Boxes are the truth for grounding: no pixel outside may differ from the background, some pixel inside must."""
    for index in range(40):
        scene = make(KeyedRandom("paint", index), "train")
        painted = np.asarray(draw.draw(scene)) != np.asarray(scene.background, np.uint8)
        painted = painted.any(axis=-1)
        for left, top, right, bottom in (thing.box for thing in scene.things):
            assert painted[top:bottom, left:right].any()
        for left, top, right, bottom in (thing.box for thing in scene.things):
            painted[top:bottom, left:right] = False
        assert not painted.any(), scene


def test_text_boxes_are_tight():
    """A box one pixel smaller on any side would cut ink."""
    for index in range(40):
        scene = scenes.text(KeyedRandom("tight", index), "train")
        thing = scene.things[0]
        alone = world.Scene(scene.size_px, (255, 255, 255), (thing,))
        rows, columns = np.nonzero((np.asarray(draw.draw(alone)) < 255).any(axis=-1))
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert max(abs(a - b) for a, b in zip(box, thing.box, strict=True)) <= 1


def test_an_image_is_the_same_after_pickling():
    """Workers get records by pickle."""
    image = draw.lazy_image(scenes.mixed(KeyedRandom("pickle", 3), "train"))
    again = pickle.loads(pickle.dumps(image))
    assert image.load().size == image.size_px and image.load().mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image.load()), np.asarray(again.load()))


def test_small_strings_lie_in_one_crop_and_large_ones_survive_shrinking():
    for index in range(200):
        small = pages.page(KeyedRandom("small", index), "train", "small").scene.things[0]
        assert small.box[0] // BASE_PX == (small.box[2] - 1) // BASE_PX
        assert small.box[1] // BASE_PX == (small.box[3] - 1) // BASE_PX
        assert small.size <= round(pages.SMALL_CAP_PX[1] / 0.73)
        large = pages.page(KeyedRandom("large", index), "train", "large").scene.things[0]
        assert large.size >= 2 * round(9 / 0.73), large


def test_chart_labels_and_lines_do_not_straddle_crops():
    for index in range(300):
        for kind in ("lines", "chart", "strip"):
            scene = pages.page(KeyedRandom("straddle", index), "train", kind).scene
            for thing in pages.strings(scene):
                left, top, right, bottom = thing.box
                assert left // BASE_PX == (right - 1) // BASE_PX, (kind, thing)
                assert top // BASE_PX == (bottom - 1) // BASE_PX, (kind, thing)


def test_boxes_are_read_back_as_written():
    assert language.box_text((8, 16, 32, 64), (64, 64)) == "[0.12, 0.25][0.50, 1.00]"
    assert boxes.parse_box("at [0.12, 0.25][0.50, 1.00].") == (0.12, 0.25, 0.5, 1.0)
    assert boxes.parse_box("[0.12, 0.25][0.50") is None


def test_keyed_random_samples_without_repetition_and_covers_its_range():
    rng = KeyedRandom("dice", 0)
    assert sorted(rng.shuffle(range(9))) == list(range(9))
    assert {rng.between(2, 4) for _ in range(100)} == {2, 3, 4}
    assert {rng.pick("ab") for _ in range(50)} == {"a", "b"}
