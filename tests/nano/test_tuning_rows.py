"""Rows of a question that no stage asks: of the form that finetune reads, apart from what is asked of them later."""

import re

import numpy as np

from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.nano import tuning_rows
from xgenmm_jax.nano.world import draw, families, splits
from xgenmm_jax.nano.world.evaluation_items import items
from xgenmm_jax.nano.world.splits import POSITIONS


def test_rows_are_read_as_they_were_drawn(tmp_path):
    tuning_rows.write(tmp_path, 6, seed=3)
    source = LlavaJson(str(tmp_path / tuning_rows.ROWS_FILE), str(tmp_path / tuning_rows.IMAGES)).open()
    assert len(source) == 6 and source.left_out == ()
    for number, (scene, (question, answer)) in enumerate(tuning_rows.rows(6, seed=3)):
        record = source.record(number, np.random.default_rng(0))
        assert [turn.text for turn in record.turns] == [f"<image>\n{question}", answer]
        assert record.images[0].load().tobytes() == draw.draw(scene).tobytes()


def test_a_seed_gives_the_same_rows_and_another_seed_others():
    first, again, other = (list(tuning_rows.rows(30, seed)) for seed in (0, 0, 1))
    assert first == again and not {scene for scene, _ in first} & {scene for scene, _ in other}


def test_no_answer_and_no_picture_is_in_rows_and_in_what_is_asked_later():
    rows, asked = list(tuning_rows.rows(500, seed=0)), items("beside", 300, seed=0)
    assert len({scene for scene, _ in rows}) == 500
    assert not {scene for scene, _ in rows} & {draw.scene_of(item.images[0]) for item in asked}
    assert not {answer for _, (_, answer) in rows} & {item.answers[0] for item in asked}
    for scene, _ in rows:
        assert all(splits.combination_split(thing.color, thing.name) == "train" for thing in scene.things)


def test_the_answer_stands_on_the_side_that_is_asked_for():
    for item in items("beside", 100, seed=1):
        side, color, name = re.fullmatch(r"What is (left|right) of the (?:(\w+) )?(\w+)\?", item.question).groups()
        things = draw.scene_of(item.images[0]).things
        [other] = [t for t in things if t.name == name and color in (None, t.color)]
        cell = POSITIONS.index(other.position) + (-1 if side == "left" else 1)
        [answer] = [t for t in things if POSITIONS.index(t.position) == cell]
        assert item.answers == (f"{answer.color} {answer.name}",) and cell // 3 == POSITIONS.index(other.position) // 3


def test_its_words_are_those_of_the_stages_and_its_question_is_not():
    said = set()
    for family in ("questions", "lookups", "multi_image", "text"):
        for index in range(120):
            for text in families.texts(families.record(family, index, seed=0)):
                assert not re.search(r"\b(left|right) of\b", text)
                said |= set(re.findall(r"\w+", text))
    words = {word for _, pair in tuning_rows.rows(60, 0) for text in pair for word in re.findall(r"\w+", text)}
    assert words <= said
