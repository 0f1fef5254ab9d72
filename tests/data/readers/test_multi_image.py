"""Mantis-Instruct's tables and MMDU's list: several images a conversation, by LLaVA's rules."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_rows import IMAGE, MANTIS, MANTIS_FILES, MMDU, MMDU_FILES, OTHER_IMAGE, STRUCT, raw

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.llava import Llava
from xgenmm_jax.data.readers.multi_image import Mantis, Mmdu
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import train_tokenizer

SIZES = [(40, 30), (16, 24), (40, 30)]


def said(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def asked(question: str, images: int) -> dict:
    return {"images": [STRUCT] * images, "conversation": [said("user", question), said("assistant", "Yes.")]}


def opened(storage, reader: Reader):
    [path] = storage.shards()
    return storage.open(path, storage.locate(path), reader.fields, reader.optional)


def sizes(record: Conversation) -> list[tuple[int, int]]:
    assert all(image.load().size == image.size_px for image in record.images)
    return [image.size_px for image in record.images]


def test_a_row_of_mantis_has_images_inside_and_beside_it(tmp_path):
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train_images" / "1.jpg").write_bytes(OTHER_IMAGE)
    pq.write_table(pa.Table.from_pylist([MANTIS]), tmp_path / "train-00000.parquet")
    shard = opened(Parquet(str(tmp_path / "train-*.parquet"), str(tmp_path)), Mantis())
    record = Mantis().read(shard.read(0), 0)
    assert isinstance(Mantis(), Reader) and sizes(record) == SIZES[:2]
    roles = ("user", "assistant", "user", "assistant")
    contents = [turn["content"] for turn in MANTIS["conversation"]]
    assert record.turns == tuple(map(Turn, roles, contents))


def test_an_entry_of_mmdu_has_images_in_any_question(tmp_path):
    for name, data in MMDU_FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "mmdu-45k.json").write_text(json.dumps([MMDU]))
    shard = opened(JsonFiles(str(tmp_path / "mmdu-45k.json"), str(tmp_path)), Mmdu())
    record = Mmdu().read(shard.read(0), 0)
    assert isinstance(Mmdu(), Reader) and sizes(record) == SIZES
    assert [turn.text.count("<image>") for turn in record.turns] == [2, 0, 1, 0]
    assert record.turns[2] == Turn("user", "And this one? <image>")
    tokenizer = train_tokenizer([turn.text for turn in record.turns] * 9, tmp_path / "small.model", pieces=400)
    ids = chat.sample(record, tokenizer).token_ids
    assert int((ids == tokenizer.image_id).sum()) == 3


def test_paths_of_mmdu_are_their_last_part_unless_folders_are_kept():
    whole = {"/data/wiki/pics/a.jpg": IMAGE, "/data/wiki/pics/b.jpg": OTHER_IMAGE}
    assert sizes(Mmdu(has_folders=True).read(raw(MMDU, whole), 0)) == SIZES
    with pytest.raises(RecordError, match="image 1 of 3: image: no file 'a.jpg'"):
        Mmdu().read(raw(MMDU, whole), 0)


def test_mmdu_in_llavas_roles_and_markers_is_the_same():
    names = {"user": "human", "assistant": "gpt"}
    llava = [
        {"from": names[turn["from"]], "value": turn["value"].replace("<ImageHere>", "<image>")}
        for turn in MMDU["conversations"]
    ]
    wanted = Mmdu().read(raw(MMDU, MMDU_FILES), 0)
    assert Mmdu().read(raw(MMDU | {"conversations": llava}, MMDU_FILES), 0).turns == wanted.turns


def test_more_than_four_images_are_used_where_they_are_asked_for():
    """The official code skips such samples, and trains on every other one."""
    row = asked("<image>" * 9, 9)
    for reader in (Mantis(), Mantis(max_images=8)):
        with pytest.raises(RecordError, match=rf"more than {reader.max_images} images \(9 images\)"):
            reader.read(raw(row), 0)
    assert len(Mantis(max_images=None).read(raw(row), 0).images) == 9
    many = {
        "image": ["a.jpg"] * 9,
        "conversations": [{"from": "human", "value": "<image>" * 9}, MMDU["conversations"][1]],
    }
    assert len(Mmdu(max_images=None).read(raw(many, MMDU_FILES), 0).images) == 9
    many["conversations"] = [many["conversations"][0], {"from": "gpt", "value": "Yes."}]
    assert len(Llava(max_images=None).read(raw(many, MMDU_FILES), 0).images) == 9


def test_llavas_rules_hold_for_one_image_and_for_none():
    record = Mantis().read(raw(asked("What is it?", 1)), 0)
    assert record.turns[0].text == "<image>\nWhat is it?"
    alone = Mantis().read(raw(asked("What is it?", 0) | {"images": None}), 0)
    assert (alone.images, alone.turns[0].text) == ((), "What is it?")
    path = asked("<image> What is it?", 0) | {"images": ["train_images/1.jpg"]}
    assert sizes(Mantis().read(raw(path, MANTIS_FILES), 0)) == [(16, 24)]


@pytest.mark.parametrize(
    ("reader", "row", "words"),
    [
        (Mantis(), {"images": []}, "without a 'conversation' list"),
        (Mantis(), {"conversation": []}, "no 'images'; it has 'conversation'"),
        (Mantis(), asked("?", 0) | {"conversation": [said("user", "?")]}, "turns out of order"),
        (Mantis(), asked("?", 0) | {"conversation": [{"role": "user"}]}, "a turn whose 'content' is no text"),
        (Mantis(), asked("?", 0) | {"conversation": [said("gpt", "?")]}, "not 'role' system, user, assistant"),
        (Mantis(), asked("<image>?", 0), "<image> without an image (no 'images')"),
        (Mantis(), asked("<image>?", 2), "it has 1 <image> in its user turns and 2 images"),
        (Mantis(), asked("?", 0) | {"images": [None]}, "image 1 of 1: image: the record has NoneType"),
        (Mantis(), asked("?", 0) | {"images": [{"bytes": b"x", "path": None}]}, "is not an image"),
        (Mantis(), MANTIS, "image 2 of 2: image: no file 'train_images/1.jpg'"),
        (Mmdu(), MMDU | {"image": None}, "<ImageHere> without an image (no 'image')"),
        (Mmdu(), MMDU | {"image": ["a.jpg"] * 2}, "it has 3 <image> in its user turns and 2 images"),
        (Mmdu(), MMDU | {"image": [3] * 3}, "image 1 of 3: image: the record has int in place of bytes"),
        (Mmdu(), MMDU | {"conversations": [{"from": "bing", "value": "?"}]}, "a turn that is not 'from' system"),
    ],
)
def test_a_row_of_another_form_is_an_error_of_its_record(reader, row, words):
    with pytest.raises(RecordError) as error:
        reader.read(raw(row, MMDU_FILES), 0)
    assert words in str(error.value) and error.value.record == "rows[3]"


@pytest.mark.parametrize("name", Mantis().fields)
def test_a_renamed_column_ends_the_run_with_those_that_are_there(tmp_path, name):
    row = {f"{key}_" if key == name else key: value for key, value in MANTIS.items()}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "0.parquet")
    with pytest.raises(SourceError, match=f"no column '{name}'; the columns found: .*'{name}_'"):
        opened(Parquet(str(tmp_path / "0.parquet"), str(tmp_path)), Mantis())


@pytest.mark.parametrize("name", Mmdu().fields)
def test_a_renamed_member_ends_the_run_with_those_that_are_there(tmp_path, name):
    row = {f"{key}_" if key == name else key: value for key, value in MMDU.items()}
    (tmp_path / "0.json").write_text(json.dumps([row]))
    with pytest.raises(SourceError, match=f"no record of .* has '{name}'; the fields found: .*'{name}_'"):
        opened(JsonFiles(str(tmp_path / "0.json"), str(tmp_path)), Mmdu())
