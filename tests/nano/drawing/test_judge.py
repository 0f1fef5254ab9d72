"""The judge reads true pictures right, and refuses what is not on them."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from scipy import ndimage

from xgenmm_jax.nano.drawing import judge, prompts, scores
from xgenmm_jax.nano.drawing.prompts import Clause, Prompt
from xgenmm_jax.nano.world import draw, splits, world
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES
from xgenmm_jax.nano.world.world import KeyedRandom, Scene, Thing


def _picture(*things: Thing) -> np.ndarray:
    return np.asarray(draw.draw(Scene((64, 64), (240, 236, 228), things)))


def _shape(color: str, shape: str, position: str) -> Thing:
    return world.shape(KeyedRandom("judge", color, shape, position), color, shape, position)


def test_every_color_shape_and_place_of_true_pictures_is_read():
    rng = KeyedRandom("all")
    for color in COLORS:
        for shape in SHAPES:
            position = rng.pick(POSITIONS)
            seen = judge.things(_picture(_shape(color, shape, position)))
            assert [(one.noun, one.color, one.position) for one in seen] == [(shape, color, position)]


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_true_pictures_of_every_tag_are_correct(split: splits.Split):
    pairs = prompts.benchmark(split, 8)
    images = np.stack([np.asarray(draw.draw(scene)) for _, scene in pairs])
    asked = [prompt for prompt, _ in pairs]
    true = scores.scores(asked, images)
    assert all(share.percent == 100 for share in true.tags.values())
    assert true.overall == true.nouns.percent == true.valid.percent == 100
    assert true.colors.percent == true.positions.percent == 100
    chance = scores.scores(scores.shuffled(asked), images)
    assert chance.overall < 20 and chance.colors.percent < 50 and chance.positions.percent < 50


def test_noise_of_a_decoder_is_no_thing():
    rng = np.random.default_rng(0)
    noisy = _picture(_shape("red", "star", "top left")) + rng.normal(0, 5, (64, 64, 3))
    seen = judge.things(noisy.clip(0, 255).astype(np.uint8))
    assert [(one.noun, one.color, one.position) for one in seen] == [("star", "red", "top left")]


def test_a_slightly_blurred_square_is_no_circle():
    """The halo of a blurred square rounded its corners: four of ten were read as circles."""
    for number, color in enumerate(COLORS):
        sharp = _picture(_shape(color, "square", POSITIONS[number]))
        blurred = ndimage.gaussian_filter(sharp.astype(float), (0.7, 0.7, 0)).round().astype(np.uint8)
        seen = judge.things(blurred)
        assert [(one.noun, one.color, one.position) for one in seen] == [("square", color, POSITIONS[number])]


RED_STAR = Prompt("a red star at the top left", "dense", (Clause("star", 1, "red", "top left"),))


@pytest.mark.parametrize(
    ("things", "correct", "valid", "properties"),
    [
        ([("red", "star", "top left")], True, True, (1, 1, 1)),
        ([("red", "star", "right")], False, True, (1, 1, 0)),
        ([("blue", "star", "top left")], False, True, (1, 0, 1)),
        ([("red", "ring", "top left")], False, True, (0, 1, 1)),
        ([("red", "star", "top left"), ("blue", "ring", "bottom")], False, False, (1, 1, 1)),
        ([("red", "star", "top left"), ("red", "star", "bottom")], False, False, (1, 1, 1)),
        ([], False, False, (0, 0, 0)),
    ],
)
def test_each_property_is_judged_by_itself(things: list, correct: bool, valid: bool, properties: tuple):
    verdict = judge.judge(RED_STAR, _picture(*(_shape(*thing) for thing in things)))
    assert (verdict.is_correct, verdict.is_valid) == (correct, valid)
    assert (verdict.nouns, verdict.colors, verdict.positions) == tuple((met, 1) for met in properties)


def test_properties_of_two_things_must_belong_together():
    """GenEval's color_attr: a red star and a blue ring are no blue star and red ring."""
    prompt = Prompt("", "color_attr", (Clause("star", color="red"), Clause("ring", color="blue")))
    crossed = judge.judge(prompt, _picture(_shape("blue", "star", "left"), _shape("red", "ring", "right")))
    assert not crossed.is_correct and crossed.is_valid and crossed.colors == crossed.nouns == (2, 2)
    assert judge.judge(prompt, _picture(_shape("red", "star", "left"), _shape("blue", "ring", "right"))).is_correct


def test_counts_are_exact():
    prompt = Prompt("three stars", "counting", (Clause("star", 3),))
    for count in (2, 3, 4):
        stars = [
            _shape("green", "star", position) for position in ("top left", "top right", "bottom", "center")[:count]
        ]
        assert judge.judge(prompt, _picture(*stars)).is_correct == (count == 3)


def test_a_smear_is_found_and_is_nothing():
    """The mean of many pictures, which a model without diversity draws."""
    smear = PIL.Image.new("RGB", (64, 64), (240, 240, 240))
    PIL.ImageDraw.Draw(smear).line((4, 8, 30, 55, 58, 20, 20, 20), fill=(200, 60, 60), width=2)
    seen = judge.things(np.asarray(smear))
    assert [one.noun for one in seen] == [""] and seen[0].fit < judge.LEAST_FIT
    prompt = Prompt("a star", "single_object", (Clause("star"),))
    assert not judge.judge(prompt, np.asarray(smear)).is_valid


def test_diversity_counts_places_of_correct_pictures():
    prompt = Prompt("a red star", "colors", (Clause("star", color="red"),))
    positions = ("top", "top", "left", "center")
    images = [_picture(_shape("red", "star", position)) for position in positions]
    images += [_picture(_shape("red", "ring", "right")), _picture()]
    result = scores.diversity(prompt, np.stack(images))
    assert (result.positions, result.all_positions) == (3, 4)
    assert (result.correct, result.valid) == (pytest.approx(100 * 4 / 6), pytest.approx(100 * 5 / 6))


def test_shuffling_moves_every_prompt_within_its_tag():
    asked = [prompt for prompt, _ in prompts.benchmark("train", 7)]
    moved = scores.shuffled(asked)
    assert sorted(one.caption for one in moved) == sorted(one.caption for one in asked)
    assert all(a.caption != b.caption and a.tag == b.tag for a, b in zip(asked, moved, strict=True))


def test_overall_is_the_mean_over_open_tags():
    """Two of "colors", one right, one of "counting", right, one dense: (50 + 100) / 2."""
    red, star = _picture(_shape("red", "star", "top")), Clause("star", color="red")
    asked = [
        Prompt("", "colors", (star,)),
        Prompt("", "colors", (Clause("ring"),)),
        Prompt("", "counting", (star,)),
        RED_STAR,
    ]
    result = scores.scores(asked, np.stack([red] * 4))
    assert result.overall == 75.0
    assert [result.tags[tag].percent for tag in ("colors", "counting", "dense")] == [50.0, 100.0, 0.0]
    assert result.tags["colors"].error == pytest.approx(100 * np.sqrt(0.25 / 2))
    assert (result.nouns.percent, result.nouns.count) == (75.0, 4)
    with pytest.raises(ValueError, match="got 4 pictures of 3 prompts"):
        scores.scores(asked[:3], np.stack([red] * 4))
