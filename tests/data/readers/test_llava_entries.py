"""`Llava` reads an entry of a storage by the rules of `LlavaJson`."""

import json

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data import source_paths
from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.images import open_image
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.llava import Llava, LlavaJson
from xgenmm_jax.data.records import Turn
from xgenmm_jax.data.storage.base import Raw

HUMAN, GPT = {"from": "human", "value": "<image>\nWhat is on the bus?"}, {"from": "gpt", "value": "An advert."}
ENTRY = {"id": "000000033471", "image": "coco/train2017/000000033471.jpg", "conversations": [HUMAN, GPT]}
SYSTEM = {"from": "system", "value": "Be brief."}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    PIL.Image.new("RGB", (12, 8), "red").save(tmp_path / "coco" / "train2017" / "000000033471.jpg")
    return tmp_path


def raw(row: dict, folder) -> Raw:
    return Raw("mix665k.json[7]", row, lambda path: open_image(source_paths.inside(folder, path), official=True))


def text(value: str, images: int | None = None) -> dict:
    """An entry whose first question is `value`, with so many images; None leaves the key out."""
    paths = {} if images is None else {"image": [ENTRY["image"]] * images}
    return {"id": "1", "conversations": [{"from": "human", "value": value}, GPT], **paths}


def test_an_entry_is_a_conversation(folder):
    record = Llava().read(raw(ENTRY, folder), 0)
    assert (record.id, record.images[0].size_px) == ("mix665k.json[7]", (12, 8))
    assert record.turns == (Turn("user", HUMAN["value"]), Turn("assistant", GPT["value"]))
    assert isinstance(Llava(), Reader) and Llava().choices(raw(ENTRY, folder)) == 1


@pytest.mark.parametrize(
    "row",
    [
        ENTRY,
        ENTRY | {"image": [ENTRY["image"]] * 3, "conversations": [HUMAN | {"value": "<image><image>?<image>"}, GPT]},
        ENTRY | {"conversations": [SYSTEM, GPT, HUMAN, GPT, HUMAN, GPT]},
        {"id": 5, "images": [ENTRY["image"]], "conversations": [HUMAN, GPT]},
        text("no marker", 1),
        text("two <image> and <image>", 1),
        text("at the end <image>", 1),
        text("a tag, <img>, in text alone"),
        ENTRY | {"image": float("nan"), "conversations": [HUMAN | {"value": "Hi"}, GPT]},
        ENTRY | {"image": ["", None], "conversations": [HUMAN | {"value": "Hi"}, GPT], "model": None},
    ],
)  # fmt: skip
def test_entries_are_read_as_the_file_reader_reads_them(folder, row):
    (folder / "data.json").write_text(json.dumps([row]))
    theirs = LlavaJson(str(folder / "data.json"), str(folder)).open().record(0, np.random.default_rng(0))
    ours = Llava().read(raw(row, folder), 0)
    assert ours.turns == theirs.turns
    assert [image.size_px for image in ours.images] == [image.size_px for image in theirs.images]


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1"},
        ENTRY | {"conversations": "Hi"},
        ENTRY | {"conversations": [HUMAN, GPT | {"value": None}]},
        ENTRY | {"conversations": [HUMAN, GPT | {"from": "bing"}]},
        ENTRY | {"conversations": [HUMAN]},
        ENTRY | {"conversations": [HUMAN, HUMAN, GPT]},
        ENTRY | {"image": {"bytes": "x"}},
        ENTRY | {"image": [ENTRY["image"], 3]},
        ENTRY | {"image": "a.png", "images": "b.png"},
        ENTRY | {"image": [ENTRY["image"]] * 5},
        text("<image> of nothing"),
        text("<image> of nothing", 0),
    ],
)
def test_what_the_file_reader_leaves_out_is_an_error_with_the_same_reason(folder, row):
    (folder / "data.json").write_text(json.dumps([row, text("Hi")]))
    [skip] = LlavaJson(str(folder / "data.json"), str(folder)).open().left_out
    with pytest.raises(RecordError) as error:
        Llava().read(raw(row, folder), 0)
    assert error.value.record == "mix665k.json[7]" and skip.reason in str(error.value)
    assert skip.detail[:40] in str(error.value)


def test_more_images_are_used_where_they_are_asked_for(folder):
    row = ENTRY | {"image": [ENTRY["image"]] * 5}
    assert len(Llava(max_images=5).read(raw(row, folder), 0).images) == 5
    with pytest.raises(SourceError, match="more than 4 images"):
        (folder / "data.json").write_text(json.dumps([row]))
        LlavaJson(str(folder / "data.json"), str(folder)).open()


@pytest.mark.parametrize("image", ["gone.jpg", "../coco/train2017/x.jpg", "coco", "a\0b.jpg"])
def test_an_image_that_cannot_be_opened_costs_its_record(folder, image):
    with pytest.raises(RecordError, match="mix665k"):
        Llava().read(raw(ENTRY | {"image": image}, folder), 0)


def test_a_storage_without_images_says_what_it_lacks():
    with pytest.raises(RecordError, match="has no folder of images; give it one"):
        Llava().read(Raw("1", ENTRY), 0)
