"""Scans descriptions of thousands of records for anything held out."""

import re

import pytest

from xgenmm_jax.data import drawings, splits
from xgenmm_jax.data.records import Caption, Document, Picture, Record
from xgenmm_jax.data.synthetic import draw, evaluation_items, families
from xgenmm_jax.data.synthetic.world import ALPHABET, Scene, Thing

DANGERS = dict(drawings.DANGERS)
COMBINATION = re.compile(rf"\b({'|'.join(splits.COLORS)}) ({'|'.join(splits.SHAPES)})")
BOX = re.compile(r"\[[^\]]*\]")
STRING = re.compile(rf"\b[{ALPHABET}]{{2,4}}\b")


def scene_of(picture: Picture) -> Scene:
    """The description that a synthetic picture is painted from."""
    return draw.scene_of(picture)


def pictures_of(record: Record) -> tuple[Picture, ...]:
    if isinstance(record, Caption):
        return (record.picture,)
    if isinstance(record, Document):
        return tuple(part for part in record.parts if isinstance(part, Picture))
    return record.pictures


def held_out_things(scene: Scene) -> set[str]:
    """What in a scene is held out, in words."""
    return {note for thing in scene.things for note in _held_out(thing, scene)}


def _held_out(thing: Thing, scene: Scene) -> list[str]:
    notes = []
    if thing.kind == "shape" and splits.combination_split(thing.color, thing.name) == "held_out":
        notes.append(f"combination {thing.color} {thing.name}")
    if thing.kind in ("text", "bar") and splits.word_split(thing.name) == "held_out":
        notes.append(f"word {thing.name}")
    if thing.kind == "text" and splits.font_split(thing.look) == "held_out":
        notes.append(f"font {thing.look}")
    if thing.kind == "digit" and thing.look.startswith("held_out"):
        notes.append(f"handwriting {thing.look}")
    if thing.kind == "object":
        if splits.style_split(thing.look) == "held_out":
            notes.append(f"style {thing.look}")
        if thing.name in DANGERS and splits.danger_split(DANGERS[thing.name]) == "held_out":
            notes.append(f"danger {thing.name}")
        if thing.name not in DANGERS and splits.object_place_split(thing.name, thing.place) == "held_out":
            notes.append(f"place {thing.name} {thing.place}")
        if scene.frame == "plain":
            color = {(250, 205, 0): "yellow", (245, 140, 20): "orange", (20, 20, 20): "black", (215, 40, 40): "red"}
            if splits.object_frame_split(thing.name, color[scene.frame_ink]) == "held_out":
                notes.append(f"frame {thing.name} {scene.frame_ink}")
    return notes


@pytest.mark.parametrize("family", families.FAMILIES)
def test_training_records_show_and_tell_nothing_held_out(family: families.Family):
    """Neither in a picture, distractors included, nor in a text, wrong answers included."""
    for index in range(400):
        record = families.record(family, index, seed=7)
        for picture in pictures_of(record):
            assert held_out_things(scene_of(picture)) == set(), record.id
        for text in families.texts(record):
            for color, shape in COMBINATION.findall(text):
                assert splits.combination_split(color, shape) == "train", (record.id, text)
            for string in STRING.findall(BOX.sub("", text)):
                assert splits.word_split(string) == "train", (record.id, text)
            for name, category in drawings.DANGERS:
                if splits.danger_split(category) == "held_out":
                    assert not re.search(rf"\b{name}\b", text), (record.id, text)


HELD_OUT_FAMILIES = (
    *("caption", "ocr", "ocr_hd", "small_text", "grounding", "pages", "page_questions", "multi_image", "safety"),
)


@pytest.mark.parametrize("family", HELD_OUT_FAMILIES)
def test_held_out_records_show_something_held_out_in_every_picture(family: families.Family):
    for index in range(150):
        record = families.record(family, index, seed=7, split="held_out")
        for picture in pictures_of(record):
            assert held_out_things(scene_of(picture)), record.id


@pytest.mark.parametrize("kind", evaluation_items.ITEM_KINDS)
def test_evaluation_items_hinge_on_something_held_out(kind: evaluation_items.ItemKind):
    for item in evaluation_items.items(kind, 60, seed=7):
        for picture in item.pictures:
            assert held_out_things(scene_of(picture)), item.id
        if kind not in ("multi_image", "benign", "unsafe", "new_style"):
            # The first thing is what the question is about.
            scene = scene_of(item.pictures[0])
            assert _held_out(scene.things[0], scene), item.id
