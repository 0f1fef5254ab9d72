"""Sources: LLaVA's form, record files, and drawn images kept on disk."""

import io
import json
import random

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.data.readers.records import RecordFiles, write_records
from xgenmm_jax.data.records import (
    Caption,
    Conversation,
    Document,
    LazyImage,
    Preference,
    Turn,
    images_of,
    with_images,
)
from xgenmm_jax.data.source import Source
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import train_tokenizer
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.nano.world import families

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    PIL.Image.new("RGB", (12, 8), "red").save(tmp_path / "red.png")
    return tmp_path


def llava(folder, rows: list, **options) -> Source:
    (folder / "data.json").write_text(json.dumps(rows))
    return LlavaJson(str(folder / "data.json"), str(folder), **options).open()


def row(question: str, **extra) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "Yes."}]
    return {"id": "1", "conversations": turns, **extra}


def test_llava_conversations(folder):
    pair = row("<image><image>", image=["red.png"] * 2)
    source = llava(folder, [row("Red?\n<image>", image="red.png"), row("Hi"), pair])
    one, text, two = (source.record(i, RNG) for i in range(3))
    assert one.turns == (Turn("user", "Red?\n<image>"), Turn("assistant", "Yes."))
    assert one.images[0].size_px == (12, 8) == one.images[0].load().size
    assert text.images == () and len(two.images) == 2


def test_llava_is_repaired_and_left_out_as_the_official_code_does(folder):
    source = llava(
        folder,
        [row("Red?", image="red.png"), row("<image> <image> red?", image="red.png"), row("no image <image>"),
         row("many", image=["red.png"] * 5)],
    )  # fmt: skip
    assert (len(source), sum(skip.count for skip in source.left_out)) == (2, 2)
    assert [source.record(i, RNG).turns[0].text for i in range(2)] == ["<image>\nRed?", "<image>\nred?"]


def test_llava_samples_are_drawn_by_seed_42(folder):
    rows = [row(f"{n}?") for n in range(10)]
    some = llava(folder, rows, samples=4)
    assert len({some.record(i, RNG).turns[0].text for i in range(4)}) == len(some) == 4
    again = llava(folder, rows, samples=4)
    assert [some.record(i, RNG).turns for i in range(4)] == [again.record(i, RNG).turns for i in range(4)]
    drawn = random.Random(42).sample(rows, 4)
    assert [some.record(i, RNG).turns[0].text for i in range(4)] == [r["conversations"][0]["value"] for r in drawn]
    assert len(llava(folder, rows, samples=25)) == 25


def test_llava_errors_say_what_is_wrong(folder):
    with pytest.raises(ValueError, match="outside of"):
        llava(folder, [row("a", image="../red.png")]).record(0, RNG)
    with pytest.raises(ValueError, match="no file .*gone.png"):
        llava(folder, [row("a", image="gone.png")]).record(0, RNG)
    with pytest.raises(ValueError, match="without a 'conversations' list"):
        llava(folder, [{"id": 1}])
    with pytest.raises(ValueError, match="no file"):
        LlavaJson(str(folder / "none.json"), str(folder)).open()
    (folder / "cut.json").write_text('[{"id":')
    with pytest.raises(ValueError, match="is not JSON"):
        LlavaJson(str(folder / "cut.json"), str(folder)).open()


def test_record_files_give_back_what_was_written(tmp_path):
    def png(shade: int) -> bytes:
        file = io.BytesIO()
        PIL.Image.new("RGB", (shade, 5), (shade, 0, 0)).save(file, "PNG")
        return file.getvalue()

    one, two = (LazyImage((shade, 5), lambda: None) for shade in (3, 4))
    turns = (Turn("user", "<image>é?"),)
    records = [
        (Caption("a", one, "red"), [png(3)]),
        (Document("b", ("x", one, "y", two), "\n"), [png(3), png(4)]),
        (Conversation("c", (two,), (*turns, Turn("assistant", "no"))), [png(4)]),
        (Preference("d", (), turns, "yes", "no"), []),
    ]
    assert write_records(tmp_path / "a-0.array_record", records[:2]) == 2
    write_records(tmp_path / "a-1.array_record", records[2:])
    source = RecordFiles(str(tmp_path / "a-*.array_record")).open()
    assert len(source) == 4
    for i, (want, blobs) in enumerate(records):
        got = source.record(i, RNG)
        images = images_of(got)
        assert [image.size_px for image in images] == [image.size_px for image in images_of(want)]
        assert [image.load().getpixel((0, 0))[0] for image in images] == [p.size_px[0] for p in images]
        assert len(blobs) == len(images)
        assert not images or with_images(got, images_of(want)) == want
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.array_record", "a-1.array_record", "shards.json"]
    with pytest.raises(ValueError, match="no file matches"):
        RecordFiles(str(tmp_path / "b-*")).open()
    assert len(RecordFiles(str(tmp_path / "a-1*")).open()) == 2


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_becomes_samples(tmp_path, family):
    tokenizer = train_tokenizer(["a red circle"] * 9, tmp_path / "small.model", pieces=400)
    config = Synthetic(family, length=20)
    source = config.open()
    for i in range(20):
        record = source.record(i, RNG)
        sample = chat.sample(record, tokenizer)
        assert sample.loss_mask.any() and sample.images == images_of(record)
        assert np.sum(sample.token_ids == tokenizer.image_id) == len(sample.images)


def test_synthetic_records_do_not_depend_on_the_generator():
    source = Synthetic("questions", length=5).open()
    assert source.record(3, np.random.default_rng(1)).turns == source.record(3, np.random.default_rng(2)).turns


def test_data_are_read_as_the_official_code_reads_them(folder):
    """A user's photo is turned and laid on white; images of data are what the released model was trained on."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGBA", (9, 4), (10, 20, 30, 0)).save(folder / "phone.png", exif=exif)
    given = llava(folder, [row("Red?", image="phone.png")]).record(0, RNG).images[0]
    blob = (folder / "phone.png").read_bytes()
    write_records(folder / "a.array_record", [(Caption("a", given, "red"), [blob])])
    stored = RecordFiles(str(folder / "a.array_record")).open().record(0, RNG).image
    for image in (given, stored):
        assert image.size_px == image.load().size == (9, 4)
        assert image.load().getpixel((0, 0)) == (10, 20, 30)
