"""Readers on the files that hold published rows: opened, indexed, measured and read."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.index.measure import Measurer, measure_shard
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.readers.instructions import Instructions
from xgenmm_jax.data.readers.llava import Llava, LlavaJson
from xgenmm_jax.data.readers.obelics import Obelics
from xgenmm_jax.data.readers.text import PlainText
from xgenmm_jax.data.records import Record, images_of
from xgenmm_jax.data.sharded import ShardedRecords, ShardedSource
from xgenmm_jax.data.storage.base import Storage
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import train_tokenizer

A, B, GONE = (f"http://example.org/{name}.jpg" for name in ("a", "b", "gone"))


def opened(storage: Storage, reader: Reader) -> ShardedRecords:
    return ShardedSource(storage, reader).open()


def read(records: ShardedRecords, index: int = 0) -> Record:
    record = records.record(index, np.random.default_rng(index))
    assert all(image.load().size == image.size_px for image in images_of(record))
    return record


@pytest.fixture
def images(tmp_path) -> Path:
    """Images of URLs under the names that `ImageFolder` looks for, and one by its path."""
    folder = tmp_path / "images"
    (folder / "coco").mkdir(parents=True)
    for url, size in ((A, (40, 30)), (B, (16, 24))):
        (folder / f"{hashlib.sha256(url.encode()).hexdigest()}.jpg").write_bytes(jpeg(size))
    (folder / "coco" / "1.jpg").write_bytes(jpeg((40, 30)))
    return folder


def parquet(path: Path, rows: list[dict], schema: pa.Schema | None = None) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=2)
    return str(path)


def obelics(*urls: str | None) -> dict:
    return {
        "images": list(urls),
        "metadata": json.dumps([url and {"src": url, "original_width": 9, "original_height": 9} for url in urls]),
        "general_metadata": json.dumps({"url": "http://example.org", "warc_filename": "x.warc.gz"}),
        "texts": [None if url else f"text {number}" for number, url in enumerate(urls)],
    }


def test_obelics_with_images_in_a_folder(tmp_path, images):
    rows = [obelics(A, None, B), obelics(None, GONE, None, A), obelics(GONE, None)]
    path = parquet(tmp_path / "0.parquet", rows)
    records = opened(Parquet(path, images=str(images)), Obelics())
    assert [image.size_px for image in images_of(read(records))] == [(40, 30), (16, 24)]
    some = read(records, 1)
    assert (some.parts[0], some.dropped, len(images_of(some))) == ("text 0", 1, 1)
    with pytest.raises(
        RecordError, match=r"0.parquet\[2\]: none of its 1 images can be had; the first: image: no file"
    ):
        read(records, 2)


def test_what_obelics_lost_is_counted_where_sizes_are_measured(tmp_path, images):
    storage = Parquet(parquet(tmp_path / "0.parquet", [obelics(None, GONE, None, A), obelics(GONE, None)]), str(images))
    tokenizer = train_tokenizer(["text 0 and text 1"] * 9, tmp_path / "small.model", pieces=400)
    [path] = storage.shards()
    reader = Obelics()
    shard = storage.open(path, storage.locate(path), reader.fields, reader.optional)
    sizes = measure_shard(shard, reader, Measurer(tokenizer, chat.PHI3_STYLE))
    assert (sizes.dropped, list(sizes.bad), sizes.shapes.image_px.tolist()) == (1, [1], [[40, 30]])


def test_obelics_with_images_joined_to_its_table(tmp_path):
    rows = [obelics(A, None, B) | {"image_bytes": [jpeg((40, 30)), None, None]}]
    schema = pa.schema(
        [("images", pa.list_(pa.string())), ("metadata", pa.string()), ("general_metadata", pa.string())]
        + [("texts", pa.list_(pa.string())), ("image_bytes", pa.list_(pa.binary()))]
    )
    record = read(opened(Parquet(parquet(tmp_path / "0.parquet", rows, schema)), Obelics()))
    assert (len(images_of(record)), record.dropped) == (1, 1)


def test_captions_of_tables(tmp_path, images):
    kale = [{"url": A, "caption": "A long one.", "cogvlm_caption": "short", "score": 0.5}]
    reader = ImageCaptions(image=(), image_name="url", caption="caption", other_captions=("cogvlm_caption",))
    records = opened(Parquet(parquet(tmp_path / "kale.parquet", kale), images=str(images)), reader)
    drawn = {records.record(0, np.random.default_rng(seed)).text for seed in range(20)}
    assert drawn == {"A long one.", "short"}
    hub = [{"image": {"bytes": jpeg((40, 30)), "path": "1.jpg"}, "caption": ["one", "two"]}]
    reader = ImageCaptions(image=("image",), caption="caption")
    storage = Parquet(parquet(tmp_path / "hub.parquet", hub))
    assert read(ShardedSource(storage, reader, index=str(tmp_path / "i")).open()).image.size_px == (40, 30)
    with pytest.raises(SourceError, match="has no column 'img'"):
        read(ShardedSource(storage, ImageCaptions(image=("img",), caption="caption"), index=str(tmp_path / "j")).open())


def test_llava_entries_of_lines_and_lists_and_tables(tmp_path, images):
    rows = [
        {"id": "1", "image": "coco/1.jpg", "conversations": [("human", "What?"), ("gpt", "A bus.")]},
        {"id": "2", "image": None, "conversations": [("system", "Brief."), ("human", "Hi"), ("gpt", "Hello.")]},
    ]
    for row in rows:
        row["conversations"] = [{"from": role, "value": text} for role, text in row["conversations"]]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    theirs = LlavaJson(str(tmp_path / "list.json"), str(images)).open()
    wanted = [theirs.record(number, np.random.default_rng(0)).turns for number in range(2)]
    storages = [
        JsonFiles(str(tmp_path / "list.json"), str(images)),
        JsonFiles(str(tmp_path / "lines.jsonl"), str(images)),
        Parquet(parquet(tmp_path / "table.parquet", rows), str(images)),
    ]
    for number, storage in enumerate(storages):
        records = ShardedSource(storage, Llava(), index=str(tmp_path / str(number))).open()
        assert [read(records, index).turns for index in range(2)] == wanted
        assert [len(read(records, index).images) for index in range(2)] == [1, 0]


def test_instructions_and_text(tmp_path):
    orca = [{"id": "cot.1", "system_prompt": "", "question": "2 + 2?", "response": "4"}]
    records = opened(Parquet(parquet(tmp_path / "orca.parquet", orca)), Instructions())
    assert [turn.text for turn in read(records).turns] == ["2 + 2?", "4"]
    (tmp_path / "text.jsonl").write_text('{"text": "one"}\n{"text": "two <image>", "url": "x"}\n')
    records = opened(JsonFiles(str(tmp_path / "text.jsonl")), PlainText())
    assert read(records, 1).parts == ("two <image>",)
