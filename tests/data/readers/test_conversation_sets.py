"""Published sets of conversations in their containers, as `conversation_sets.py` and `caption_sets.py` read them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_rows import IMAGE, LIMA, raw, turns
from tar_files import write_tar

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers import caption_sets, conversation_sets
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.instructions import TextTurns
from xgenmm_jax.data.records import Record
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.tars import Tars


def read(storage, reader: Reader) -> list[Record]:
    [path] = storage.shards()
    shard = storage.open(path, storage.locate(path), reader.fields, reader.optional)
    return [reader.read(shard.read(number), 0) for number in range(len(shard))]


def said(record: Record) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in record.turns]


def lines(path: Path, *rows: dict) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def in_coco(folder: Path, name: str) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(IMAGE)
    return name


def test_som_llava_is_a_list_with_images_of_its_own_folder(tmp_path):
    image = in_coco(tmp_path, "coco/som_train2017/000000000009.jpg")
    listing = turns("<image>\nI have labeled each object with a tag. Please list them.", "1. bowl 2. broccoli")
    row = {"id": "000000000009", "image": image, "conversations": listing}
    (tmp_path / "som_listing_coco10k.json").write_text(json.dumps([row]))
    [record] = read(JsonFiles(str(tmp_path / "*.json"), str(tmp_path)), conversation_sets.SOM_LLAVA)
    assert said(record) == [("user", listing[0]["value"]), ("assistant", "1. bowl 2. broccoli")]
    assert record.images[0].load().size == (40, 30)


def test_cambrian_is_lines_with_a_system_prompt_and_a_source(tmp_path):
    image = in_coco(tmp_path, "coco/train2017/1.jpg")
    talk = turns("<image>\nWhat is it?", "A bus.", system="You are Cambrian.")
    rows = [
        {"id": "1", "image": image, "conversations": talk, "source": "lvis_instruct4v_220k.json"},
        {"id": 2, "conversations": turns("2 + 2?", "4"), "source": "orca_math"},
    ]
    path = lines(tmp_path / "Cambrian7M_withsystemprompt.jsonl", *rows)
    first, second = read(JsonFiles(path, str(tmp_path)), conversation_sets.CAMBRIAN)
    assert [role for role, _ in said(first)] == ["system", "user", "assistant"] and len(first.images) == 1
    assert (said(second), second.images) == ([("user", "2 + 2?"), ("assistant", "4")], ())


def test_slim_orca_and_code_have_llavas_turns_without_images(tmp_path):
    talk = turns("Hi", "Hello.", system="Brief.")
    weighted = [turn | {"weight": weight} for turn, weight in zip(talk, (None, 0, 1), strict=True)]
    path = lines(tmp_path / "oo-labeled_correct.gpt4.sharegpt.jsonl", {"conversations": weighted})
    [record] = read(JsonFiles(path), conversation_sets.SLIM_ORCA)
    assert said(record) == [("system", "Brief."), ("user", "Hi"), ("assistant", "Hello.")]
    (tmp_path / "code.json").write_text(json.dumps([{"id": "py_0", "conversations": turns("Sort it.", "x.sort()")}]))
    [record] = read(JsonFiles(str(tmp_path / "code.json")), conversation_sets.PYTHON_CODE_23K)
    assert said(record) == [("user", "Sort it."), ("assistant", "x.sort()")]


@pytest.mark.parametrize("reader", [conversation_sets.GSM8K, conversation_sets.ORCA_MATH])
def test_questions_and_answers_of_arithmetic(tmp_path, reader):
    row = {
        "question": "Natalia sold 48 clips, then half as many. How many?",
        "answer": "48+24 = <<48+24=72>>72\n#### 72",
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "0.parquet")
    [record] = read(Parquet(str(tmp_path / "0.parquet")), reader)
    assert said(record) == [("user", row["question"]), ("assistant", row["answer"])]


def test_lima_is_a_list_of_texts_in_turn(tmp_path):
    path = lines(tmp_path / "train.jsonl", LIMA, LIMA | {"conversations": ["a", "b", "c", "d"]})
    first, second = read(JsonFiles(path), conversation_sets.LIMA)
    assert said(first) == [("user", LIMA["conversations"][0]), ("assistant", LIMA["conversations"][1])]
    assert said(second) == [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    lines(tmp_path / "train.jsonl", {"conversation": ["a", "b"], "source": "multi_turn"})
    with pytest.raises(SourceError, match="has 'conversations'; the fields found: 'conversation', 'source'"):
        read(JsonFiles(path), conversation_sets.LIMA)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["Only asked, as in the test split."], "has no assistant turn"),
        (["a", "b", "c"], r"the turns \[user, assistant, user\]"),
        ([], "has no assistant turn"),
        (["a", " "], "text 2 of 'conversations' is empty"),
        (["a", None], "text 2 of 'conversations' is NoneType"),
        ("ab", "'conversations' is str, wanted a list"),
    ],
)
def test_a_list_of_another_form_is_an_error_of_its_record(texts, words):
    with pytest.raises(RecordError, match=words) as error:
        TextTurns().read(raw({"conversations": texts}), 0)
    assert error.value.record == "rows[3]"


def test_blip3o_is_tars_of_images_and_captions(tmp_path):
    samples = [
        ("sa_000000/0", {"jpg": IMAGE, "txt": b"A red bus, photographed in London."}),
        ("1", {"txt": b"No image."}),
    ]
    path = str(write_tar(tmp_path / "sa_000000.tar", samples))
    storage, reader = Tars(path), caption_sets.BLIP3O
    shard = storage.open(path, storage.locate(path), reader.fields, reader.optional)
    record = reader.read(shard.read(0), 0)
    assert (record.text, record.image.load().size) == ("A red bus, photographed in London.", (40, 30))
    with pytest.raises(RecordError, match="no image: wanted one of jpg, png, webp; it has 'txt'"):
        reader.read(shard.read(1), 0)
    path = str(write_tar(tmp_path / "renamed.tar", [("0", {"jpg": IMAGE, "caption": b"A bus."})]))
    with pytest.raises(SourceError, match="no sample of .*renamed.tar' has 'txt'; the members found: 'caption', 'jpg'"):
        storage.open(path, storage.locate(path), reader.fields, reader.optional)
