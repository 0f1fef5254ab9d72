"""Published fine-tuning sets of single images, in the containers in which they are published: indexed and read."""

import dataclasses
import json
from pathlib import Path
import shutil

import numpy as np
import pytest
from vqa_files import LETTER, SETS, SHORT

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.index.measure import Measurer, measure_shard
from xgenmm_jax.data.readers import vqa_sets
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.dialogues import Cauldron, VLGuard
from xgenmm_jax.data.readers.questions import ImageQuestions
from xgenmm_jax.data.records import Conversation
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.base import Raw, Storage
from xgenmm_jax.data.storage.tfds import Tfds
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import train_tokenizer

TFDS = Path(__file__).parents[2] / "fixtures" / "tfds"
OF_TFDS = {
    "clevr": vqa_sets.CLEVR,
    "chartqa/human": vqa_sets.CHARTQA,
    "textvqa": vqa_sets.TEXTVQA,
}


def raws(storage: Storage, reader: Reader) -> list[Raw]:
    [path] = storage.shards()
    shard = storage.open(path, storage.locate(path), reader.fields, reader.optional)
    return [shard.read(number) for number in range(len(shard))]


def said(record: Conversation) -> tuple[str, ...]:
    assert all(image.load().size == image.size_px for image in record.images)
    return tuple(turn.text for turn in record.turns)


def every(reader: Reader, raw: Raw) -> list[tuple[str, ...]]:
    """What is said at each choice."""
    return [said(reader.read(raw, choice)) for choice in range(reader.choices(raw))]


@pytest.mark.parametrize("name", SETS)
def test_the_first_record_of_each_set_is_a_conversation(tmp_path, name):
    published = SETS[name]
    source = ShardedSource(published.write(tmp_path), published.reader, index=str(tmp_path / "index")).open()
    raw = raws(published.write(tmp_path), published.reader)[0]
    record = published.reader.read(raw, 0)
    assert said(record) == published.said and len(record.images) == 1
    assert record.id == source.label_of(0) == raw.key
    assert published.said in every(published.reader, raw)
    assert said(source.record(0, np.random.default_rng(0))) in every(published.reader, raw)
    assert isinstance(published.reader, Reader)


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in SETS for field in SETS[name].reader.fields])
def test_a_file_without_a_field_is_an_error_of_the_source_with_those_found(tmp_path, name, field):
    published = SETS[name]
    storage = published.write(tmp_path, renamed=field)
    with pytest.raises(SourceError, match=f"(columns|fields) found: .*'x_{field}'") as error:
        raws(storage, published.reader)
    assert f"column '{field}'" in str(error.value) or f"has '{field}'" in str(error.value)


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, reader in OF_TFDS.items() for field in reader.fields]
)
def test_a_prepared_folder_without_a_field_says_which_it_has(tmp_path, name, field):
    folder = shutil.copytree(TFDS / name, tmp_path / "set")
    [features] = folder.rglob("features.json")
    value = json.loads(features.read_text())
    named = value["featuresDict"]["features"]
    for outer in field.split("/")[:-1]:
        named = named[outer]["sequence"]["feature"]["featuresDict"]["features"]
    named["renamed"] = named.pop(field.rpartition("/")[2])
    features.write_text(json.dumps(value))
    with pytest.raises(SourceError, match=f"no field '{field}' in .*; it has .*renamed'"):
        raws(Tfds(str(folder)), OF_TFDS[name])


def test_every_set_is_measured_as_it_is_tokenized(tmp_path):
    """Rows are planned by these sizes: images of each set, and none that the reader cannot make a sample of."""
    tokenizer = train_tokenizer(["What is on the white wall? pipe"] * 9, tmp_path / "small.model", pieces=400)
    for number, published in enumerate(SETS.values()):
        (folder := tmp_path / str(number)).mkdir()
        storage = published.write(folder)
        [path] = storage.shards()
        shard = storage.open(path, storage.locate(path), published.reader.fields, published.reader.optional)
        sizes = measure_shard(shard, published.reader, Measurer(tokenizer, chat.PHI3_STYLE))
        assert list(sizes.bad) == []
        sample = chat.sample(published.reader.read(shard.read(0), 0), tokenizer)
        assert int(np.sum(sample.token_ids == tokenizer.image_id)) == len(sample.images) == 1


def test_all_questions_of_a_scene_are_turns_of_one_conversation_or_one_is_drawn():
    scenes = sorted(raws(Tfds(str(TFDS / "clevr")), vqa_sets.CLEVR), key=lambda raw: raw.fields["image"])
    long = max(scenes, key=lambda raw: len(raw.fields["question_answer/question"]))
    turns = ("<image>\nWhat color is the cube?", "blue", "Are there two cubes?", "no", "How many cubes?", "1")
    assert every(vqa_sets.CLEVR, long) == [turns]
    one = dataclasses.replace(vqa_sets.CLEVR, prompt=f"{{question}}{SHORT}", turns="one")
    assert every(one, long) == [
        (f"<image>\nWhat color is the cube?{SHORT}", "blue"), (f"<image>\nAre there two cubes?{SHORT}", "no"),
        (f"<image>\nHow many cubes?{SHORT}", "1"),
    ]  # fmt: skip
    unanswered = [raw for raw in scenes if raw.fields["question_answer/answer"] == [""]]
    with pytest.raises(RecordError, match="'question_answer/answer' has an empty text"):
        vqa_sets.CLEVR.read(unanswered[0], 0)


def test_books_of_other_splits_are_not_read(tmp_path):
    published = SETS["ocr vqa"]
    source = ShardedSource(published.write(tmp_path), published.reader, index=str(tmp_path / "index")).open()
    assert len(source) == 1 and [(one.reason, one.count) for one in source.left_out] == [("not of split 1", 1)]


def test_a_science_question_without_an_image_is_text_alone(tmp_path):
    for name in ("science qa", "science qa json"):
        (folder := tmp_path / name).mkdir()
        published = SETS[name]
        record = published.reader.read(raws(published.write(folder), published.reader)[1], 0)
        assert record.images == () and not any("<image>" in turn.text for turn in record.turns)
        assert record.turns[0].text.endswith(f"Which is a solid?\nA. cola\nB. ice cube{LETTER}")
        assert record.turns[0].text.startswith("Context: It is cold." if "json" in name else "Which is")


def test_images_of_provision_stand_before_or_behind_the_question(tmp_path):
    published = SETS["provision"]
    one, three = raws(published.write(tmp_path), published.reader)
    reader = type(published.reader)()
    assert every(reader, one) == [("<image>\nIs there a hose?", "No."), ("Is there a hose?\n<image>", "No.")]
    asked = f"Which image has most bags?\nA. Image 0\nB. Image 2\nC. Image 1{LETTER}"
    assert every(reader, three) == [
        (f"<image> <image> <image>\n{asked}", "B"), (f"{asked}\n<image> <image> <image>", "B"),
    ]  # fmt: skip
    by_text = type(reader)(image_position="behind", prompt="{question}\n{options}", answer_by="text")
    assert every(by_text, three)[0][1] == "Image 2"
    with pytest.raises(RecordError, match="3 images; wanted 1 to 2"):
        type(reader)(max_images=2).read(three, 0)


def test_either_instruction_of_a_safe_image_comes_first(tmp_path):
    published = SETS["vlguard"]
    unsafe, safe = raws(published.write(tmp_path), published.reader)
    assert every(VLGuard(), unsafe) == [("<image>\nSpread it.", "I can't.")]
    assert every(VLGuard(), safe) == [
        ("<image>\nWhat is it?", "A park.", "Where does he live?", "I can't say."),
        ("<image>\nWhere does he live?", "I can't say.", "What is it?", "A park."),
    ]
    assert every(VLGuard(turns="one"), safe) == [
        ("<image>\nWhat is it?", "A park."), ("<image>\nWhere does he live?", "I can't say."),
    ]  # fmt: skip


def test_images_of_the_cauldron_stand_before_its_first_text(tmp_path):
    [raw] = raws(SETS["cauldron"].write(tmp_path), Cauldron())
    assert every(Cauldron(turns="one"), raw) == [
        ("<image>\nWhich year?\nAnswer briefly.", "1998"), ("<image>\nWhy?", "It says so."),
    ]  # fmt: skip
    several = Raw("1", {"images": raw.fields["images"] * 3, "texts": raw.fields["texts"]})
    assert Cauldron().read(several, 0).turns[0].text == "<image>\n" * 3 + "Which year?\nAnswer briefly."
    with pytest.raises(RecordError, match="3 images; wanted at most 2"):
        Cauldron(max_images=2).read(several, 0)
    for images in ([], None):
        assert every(Cauldron(), Raw("1", {"images": images, "texts": raw.fields["texts"][1:]})) == [
            ("Why?", "It says so.")
        ]


def test_a_sentence_is_learned_of_gqa_where_its_field_is_named(tmp_path):
    published = SETS["gqa"]
    reader = ImageQuestions(image="", image_file="{imageId}.jpg", answers="fullAnswer")
    [raw] = raws(published.write(tmp_path), reader)
    assert every(reader, raw) == [("<image>\nWhat is on the white wall?", "The pipe is on the wall.")]
