"""Images in words: every cell names what lies in it, through the same pipeline as pixels."""

import pickle

import numpy as np
import pytest

from experiments.nano import recipes
from xgenmm_jax.data.records import LazyImage, images_of
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.nano.sources import Symbolic
from xgenmm_jax.nano.world import draw, families, world
from xgenmm_jax.nano.world.symbolic_images import WORDS, cell_words, in_words, word_numbers
from xgenmm_jax.nano.world.world import Scene

RNG = np.random.default_rng(0)


def scene(*things: world.Thing) -> Scene:
    return Scene((64, 64), (255, 255, 255), things)


def test_a_thing_is_named_where_it_lies():
    small = world.Thing("shape", "star", "red", "top left", (2, 3, 14, 15))
    wide = world.Thing("object", "cat", "", "bottom", (17, 34, 47, 62))
    cells = cell_words(scene(small, wide))
    assert cells[0] == ["picture", "red", "star", "top", "left"]
    assert [i for i, words in enumerate(cells) if "cat" in words] == [9, 10, 13, 14]
    assert all(words == ["picture"] for i, words in enumerate(cells) if i not in (0, 9, 10, 13, 14))


def test_a_thing_between_cells_is_named_once():
    between = world.Thing("shape", "ring", "blue", "center", (26, 26, 38, 38))
    assert sum("ring" in words for words in cell_words(scene(between))) == 1


def test_a_string_is_spelled_over_its_cells():
    string = world.Thing("text", "K7QA", "", "center", (4, 20, 60, 40))
    row = [[word for word in words if len(word) == 1] for words in cell_words(scene(string))[4:8]]
    assert row == [["K"], ["7"], ["Q"], ["A"]]


@pytest.mark.parametrize("family", ["lookups", "questions", "multi_image", "interleaved", "safety"])
def test_words_survive_as_a_image(family):
    for index in range(40):
        for image in images_of(families.record(family, index, seed=3)):
            copy = pickle.loads(pickle.dumps(in_words(draw.scene_of(image))))
            read = [[WORDS[n] for n in cell if n] for cell in word_numbers(np.asarray(copy.load()))]
            assert read == cell_words(draw.scene_of(image))


def test_the_records_are_those_of_the_source():
    config = recipes.family("questions")
    seen, worded = config.open().record(5, RNG), Mapped(config, Symbolic()).open().record(5, RNG)
    assert seen.turns == worded.turns and seen.id == worded.id
    assert [p.size_px for p in seen.images] == [p.size_px for p in worded.images]


@pytest.mark.slow
def test_rows_hold_the_words_unchanged():
    """Cutting, packing and batching change no byte."""
    config = Mapped(recipes.family("lookups"), Symbolic())
    data = recipes.data(((config, 1.0),), recipes.ONE_VIEW, length=320, crops=12, batch_rows=2)
    batch, ids, _ = next(loader.batches(data, 0))
    crops = np.asarray(batch.pixels)
    numbers = [int(id_.split("/")[-1]) for id_ in ids[0].split(" + ")]
    assert len(numbers) > 1
    for number in numbers:
        expected = np.asarray(config.open().record(number, RNG).images[0].load())
        assert any((crop == expected).all() for crop in crops[0])


def test_what_has_no_words():
    page = families.record("pages", 0, seed=0).image
    with pytest.raises(ValueError, match="wanted 64 x 64"):
        in_words(draw.scene_of(page))
    with pytest.raises(ValueError, match="not drawn"):
        draw.scene_of(LazyImage((64, 64), lambda: None))


def test_lookups_are_of_several_things():
    for index in range(50):
        record = families.record("lookups", index, seed=1)
        assert len(draw.scene_of(record.images[0]).things) >= 2
        assert record.turns[0].text.startswith("<image>\n")
