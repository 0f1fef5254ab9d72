"""Nothing held out is in training records, everything evaluated hinges on it."""

import os
import pathlib
import subprocess
import sys

import held_out_scan
from held_out_scan import held_out_in, images_of, shown
import pytest

from xgenmm_jax.data.records import Conversation, Document, Preference, Turn
from xgenmm_jax.nano.world import documents, draw, evaluation_items, families

ROOT = pathlib.Path(__file__).parents[3]


def scan(seeds: int, records: int) -> str:
    """What `held_out_scan` finds in the first records of each family and seed, a line each."""
    command = [sys.executable, held_out_scan.__file__, str(seeds), str(records)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_training_records_show_and_tell_nothing_held_out():
    """Neither in an image, distractors included, nor in a text, wrong answers included.

    Once in eighty pairs the rejected answer named a held-out combination; a scan of one seed's first 400 saw none, and
    it never read an answer beside its question.
    """
    assert scan(seeds=4, records=500) == ""


@pytest.mark.slow
def test_many_training_records_show_and_tell_nothing_held_out():
    assert scan(seeds=3, records=20_000) == ""


@pytest.mark.parametrize(
    "question, answer, note",
    [
        ("What is in the picture?", "two blue crosses and a cup", "combination blue cross"),
        ("Is there a cross?", "blue cross: yes", "combination blue cross"),
        ("What color is the cross?", "blue", "combination blue cross"),
        ("What shape is blue?", "cross", "combination blue cross"),
        ("There are two crosses and one cross. All are blue. How many?", "three", "combination blue cross"),
        ("Describe the picture.", 'the text "K7Q" at the top', "string K7Q"),
        ("What does the text say?", "K7Q", "string K7Q"),
        ("What is on line two?", "H", "string H"),
        ("What is the value of the red bar?", "24", "string 24"),
        ("What is in the picture?", "a dog at the top", "dog at top"),
        ("What is in the picture?", "a dog (above the center)", "dog at top"),
        ("Where is the dog?", "top", "dog at top"),
        ("What object is at the top?", "dog", "dog at top"),
        ("How do I use this?", "You can use the bomb by picking it up.", "danger bomb"),
    ],
)
def test_a_scan_finds_what_is_planted(question, answer, note):
    """A scan that finds nothing passes whatever is told. Some answers name something only beside their questions."""
    rejected = Preference("planted", (), (Turn("user", question),), "a cup", answer)
    said = Conversation("planted", (), (Turn("user", question), Turn("assistant", answer)))
    shots = (documents.few_shot(question, answer), documents.few_shot("Is there a cup?", "cup: yes"))
    for record in (rejected, said, Document("planted", (" ".join(shots),))):
        assert held_out_scan.told_in(record) == {note}


HELD_OUT_FAMILIES = (
    *("caption", "ocr", "ocr_hd", "small_text", "grounding", "pages", "page_questions", "multi_image", "safety"),
)


@pytest.mark.parametrize("family", HELD_OUT_FAMILIES)
def test_held_out_records_show_something_held_out_in_every_image(family: families.Family):
    for index in range(150):
        record = families.record(family, index, seed=7, split="held_out")
        for image in images_of(record):
            assert shown(draw.scene_of(image)), record.id


@pytest.mark.parametrize("kind", evaluation_items.ITEM_KINDS)
def test_evaluation_items_hinge_on_something_held_out(kind: evaluation_items.ItemKind):
    for item in evaluation_items.items(kind, 60, seed=7):
        for image in item.images:
            assert shown(draw.scene_of(image)), item.id
        if kind not in ("multi_image", "benign", "unsafe", "new_style"):
            # The first thing is what the question is about.
            scene = draw.scene_of(item.images[0])
            assert held_out_in(scene.things[0], scene), item.id
