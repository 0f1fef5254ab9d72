"""Captions to draw: what they say is what their pictures show, and nothing held out is trained on."""

import numpy as np
import pytest

from xgenmm_jax.nano.drawing import prompts
from xgenmm_jax.nano.drawing.prompts import TAGS, Clause, Prompt
from xgenmm_jax.nano.world import draw, splits
from xgenmm_jax.nano.world.splits import SHAPES
from xgenmm_jax.nano.world.world import Scene, position_of


def _meets(scene: Scene, clause: Clause) -> int:
    return sum(
        thing.name == clause.noun and clause.color in ("", thing.color) and clause.position in ("", thing.position)
        for thing in scene.things
    )


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_scene_holds_what_its_caption_says_and_nothing_else(split: splits.Split):
    for tag in prompts.tags(split):
        for number in range(60):
            prompt, scene = prompts.described(number, split, tag)
            assert prompt.tag == tag
            assert [_meets(scene, one) for one in prompt.clauses] == [one.count for one in prompt.clauses]
            assert len(scene.things) == sum(one.count for one in prompt.clauses)
            assert all(position_of(thing.box, scene.size_px) == thing.position for thing in scene.things)
            assert all(one.noun in prompt.caption and one.color in prompt.caption for one in prompt.clauses)


def _held_out(prompt: Prompt, scene: Scene, in_words: bool) -> bool:
    """Whether a caption, or else its picture, has something held out."""
    if in_words:
        things = [(one.noun, one.color, one.position) for one in prompt.clauses]
    else:
        things = [(thing.name, thing.color, thing.position) for thing in scene.things]
    pair = " and ".join(sorted(one.noun for one in prompt.clauses))
    return (prompt.tag == "two_object" and splits.word_split(pair) == "held_out") or any(
        splits.combination_split(color, noun) == "held_out" if noun in SHAPES and color else
        noun not in SHAPES and bool(position) and splits.object_position_split(noun, position) == "held_out"
        for noun, color, position in things
    )  # fmt: skip


def test_training_shows_and_names_nothing_held_out_and_each_held_out_caption_names_it():
    for number in range(400):
        train, held_out = (prompts.described(number, split) for split in ("train", "held_out"))
        assert not _held_out(*train, in_words=True) and not _held_out(*train, in_words=False)
        assert _held_out(*held_out, in_words=True)


def test_a_pair_is_a_function_of_its_number():
    caption, image, prompt = prompts.pair(7, "train")
    again = prompts.pair(7, "train")
    assert (caption, prompt) == (again[0], again[2]) and np.array_equal(image, again[1])
    described, scene = prompts.described(7, "train")
    assert described == prompt and np.array_equal(draw.draw(scene), image)
    assert (image.size, image.mode) == ((64, 64), "RGB")
    assert prompts.pair(7, "held_out")[0] != caption != prompts.pair(8, "train")[0]


def test_half_of_the_pairs_are_dense_and_the_others_of_all_tags():
    tags = [prompts.described(number, "train")[0].tag for number in range(600)]
    assert 0.43 < tags.count("dense") / len(tags) < 0.57
    assert all(0.04 < tags.count(tag) / len(tags) < 0.13 for tag in prompts.OPEN_TAGS)


def test_the_benchmark_has_no_caption_twice():
    train, held_out = ([one for one, _ in prompts.benchmark(split, 20)] for split in ("train", "held_out"))
    assert [prompt.tag for prompt in train] == [tag for tag in TAGS for _ in range(20)]
    assert len({prompt.caption for prompt in train}) == 140
    assert [prompt.tag for prompt in held_out].count("colors") == 12
    assert not {prompt.caption for prompt in train} & {prompt.caption for prompt in held_out}
    assert [one for one, _ in prompts.benchmark("train", 20, seed=1)] != train


def test_captions_are_in_the_words_of_the_world():
    captions = {tag: prompts.described(1, "train", tag)[0].caption for tag in TAGS}
    assert captions == {
        "single_object": "a ball",
        "two_object": "a diamond and a donut",
        "counting": "two purple hearts",
        "colors": "a black cross",
        "position": "a triangle at the bottom",
        "color_attr": "a green cross and a pink square",
        "dense": "a hat at the bottom",
    }


def test_an_unknown_split_and_a_tag_without_captions_are_refused():
    with pytest.raises(ValueError, match="got split 'val', wanted 'train' or 'held_out'"):
        prompts.pair(0, "val")
    with pytest.raises(ValueError, match="got tag 'single_object' in split 'held_out', wanted one of two_object"):
        prompts.pair(0, "held_out", "single_object")
