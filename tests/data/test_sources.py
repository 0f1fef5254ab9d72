"""Sources: LLaVA's form, record files, and drawn pictures kept on disk."""

import io
import json
import random

import numpy as np
import PIL.Image
import pytest

from experiments.nano import dpo, sft_multi, sft_single, stage1, stage2
from xgenmm_jax.data import chat, record_files, sources
from xgenmm_jax.data.records import Caption, Conversation, Document, Picture, Preference, Turn
from xgenmm_jax.data.synthetic import families
from xgenmm_jax.data.tokenizer import train_tokenizer

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    PIL.Image.new("RGB", (12, 8), "red").save(tmp_path / "red.png")
    return tmp_path


def llava(folder, rows: list, **options) -> sources.Source:
    (folder / "data.json").write_text(json.dumps(rows))
    return sources.LlavaJson(str(folder / "data.json"), str(folder), **options).open()


def row(question: str, **extra) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "Yes."}]
    return {"id": "1", "conversations": turns, **extra}


def test_llava_conversations(folder):
    pair = row("<image><image>", image=["red.png"] * 2)
    source = llava(folder, [row("Red?\n<image>", image="red.png"), row("Hi"), pair])
    one, text, two = (source.record(i, RNG) for i in range(3))
    assert one.turns == (Turn("user", "Red?\n<image>"), Turn("assistant", "Yes."))
    assert one.pictures[0].size_px == (12, 8) == one.pictures[0].load().size
    assert text.pictures == () and len(two.pictures) == 2


def test_llava_is_repaired_and_left_out_as_the_official_code_does(folder):
    source = llava(
        folder,
        [row("Red?", image="red.png"), row("<image> <image> red?", image="red.png"), row("no picture <image>"),
         row("many", image=["red.png"] * 5)],
    )  # fmt: skip
    assert (len(source), source.left_out) == (2, 2)
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
        sources.LlavaJson(str(folder / "none.json"), str(folder)).open()
    (folder / "cut.json").write_text('[{"id":')
    with pytest.raises(ValueError, match="is not JSON"):
        sources.LlavaJson(str(folder / "cut.json"), str(folder)).open()


def test_record_files_give_back_what_was_written(tmp_path):
    def png(shade: int) -> bytes:
        file = io.BytesIO()
        PIL.Image.new("RGB", (shade, 5), (shade, 0, 0)).save(file, "PNG")
        return file.getvalue()

    one, two = (Picture((shade, 5), lambda: None) for shade in (3, 4))
    turns = (Turn("user", "<image>é?"),)
    records = [
        (Caption("a", one, "red"), [png(3)]),
        (Document("b", ("x", one, "y", two), "\n"), [png(3), png(4)]),
        (Conversation("c", (two,), (*turns, Turn("assistant", "no"))), [png(4)]),
        (Preference("d", (), turns, "yes", "no"), []),
    ]
    assert record_files.write_records(tmp_path / "a-0.array_record", records[:2]) == 2
    record_files.write_records(tmp_path / "a-1.array_record", records[2:])
    source = sources.RecordFiles(str(tmp_path / "a-*.array_record")).open()
    assert len(source) == 4
    for i, (want, blobs) in enumerate(records):
        got = source.record(i, RNG)
        pictures = sources.pictures_of(got)
        assert [picture.size_px for picture in pictures] == [picture.size_px for picture in sources.pictures_of(want)]
        assert [picture.load().getpixel((0, 0))[0] for picture in pictures] == [p.size_px[0] for p in pictures]
        assert len(blobs) == len(pictures)
        assert not pictures or sources.with_pictures(got, sources.pictures_of(want)) == want
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.array_record", "a-1.array_record", "shards.json"]
    with pytest.raises(ValueError, match="no file matches"):
        sources.RecordFiles(str(tmp_path / "b-*")).open()
    assert len(sources.RecordFiles(str(tmp_path / "a-1*"), gives_conversations=True).open()) == 2
    with pytest.raises(ValueError, match=r"a-0\*' begins with a Caption and .*gives_conversations=True; write .*False"):
        sources.RecordFiles(str(tmp_path / "a-0*"), gives_conversations=True).open()
    # Configs of before the field say nothing: the first record does.
    untold = [(sources.RecordFiles(str(tmp_path / pattern)), 1.0) for pattern in ("a-0*", "a-1*")]
    assert [sources.share_of_conversations([source]) for source in untold] == [0.0, 1.0]
    with pytest.raises(ValueError, match="begins with a Conversation and .*=False; write .*True"):
        sources.RecordFiles(str(tmp_path / "a-1*"), gives_conversations=False).open()


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_becomes_samples(tmp_path, family):
    tokenizer = train_tokenizer(["a red circle"] * 9, tmp_path / "small.model", pieces=400)
    config = sources.Synthetic(family, length=20)
    source = config.open()
    for i in range(20):
        record = source.record(i, RNG)
        assert isinstance(record, Conversation | Preference) == config.gives_conversations
        sample = chat.sample(record, tokenizer)
        assert sample.loss_mask.any() and sample.pictures == sources.pictures_of(record)
        assert np.sum(sample.token_ids == tokenizer.image_id) == len(sample.pictures)


def test_synthetic_records_do_not_depend_on_the_generator():
    source = sources.Synthetic("questions", length=5).open()
    assert source.record(3, np.random.default_rng(1)).turns == source.record(3, np.random.default_rng(2)).turns


def test_a_few_questions_do_not_make_a_base_model_a_tuned_one():
    shares = [sources.share_of_conversations(s.config().data.mixture) for s in (stage1, stage2, sft_single, dpo)]
    assert 0 < shares[0] < 0.3 and 0 < shares[1] < 0.3 and shares[2] > 0.9 and shares[3] == 1
    assert sources.share_of_conversations(sft_multi.config().data.mixture) == 1


def test_what_a_mixture_gives_is_told_without_its_data(tmp_path):
    """A run was not evaluated or asked where its training data did not lie."""
    gone = str(tmp_path / "gone")
    turns = [sources.LlavaJson(gone, gone), sources.RecordFiles(gone, gives_conversations=True)]
    mixture = [(source, 1.0) for source in (*turns, sources.RecordFiles(gone, False), sources.Synthetic("caption"))]
    assert sources.share_of_conversations(mixture) == 0.5


def test_data_are_read_as_the_official_code_reads_them(folder):
    """A user's photo is turned and laid on white; pictures of data are what the released model was trained on."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGBA", (9, 4), (10, 20, 30, 0)).save(folder / "phone.png", exif=exif)
    given = llava(folder, [row("Red?", image="phone.png")]).record(0, RNG).pictures[0]
    blob = (folder / "phone.png").read_bytes()
    record_files.write_records(folder / "a.array_record", [(Caption("a", given, "red"), [blob])])
    stored = sources.RecordFiles(str(folder / "a.array_record")).open().record(0, RNG).picture
    for picture in (given, stored):
        assert picture.size_px == picture.load().size == (9, 4)
        assert picture.load().getpixel((0, 0)) == (10, 20, 30)
