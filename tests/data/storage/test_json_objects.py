"""Files that are one JSON object of many records: each record is read by its range, with its key as a field."""

import json
import tracemalloc

import pytest

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers.text import PlainText
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage import json_elements
from xgenmm_jax.data.storage.base import Storage
from xgenmm_jax.data.storage.json_files import JsonFiles, JsonObject

GQA = {
    "07333408": {"imageId": "2375429", "question": 'Is it "{red}", \\ or ]?', "answer": "no", "semantic": [{"a": [1]}]},
    "0ä 日\U0001f600": {"imageId": "1159944", "question": "Café?\n", "answer": "yes", "types": {"x": {}}},
    "": {},
    'a "quoted": {key}, ': {"imageId": "2", "n": -1.5e-7},
}  # fmt: skip
ROWS = [{"question": "a", "n": 1}, {}, {"question": "[{", "deep": [[{"b": "]"}]]}]
CLEVR = {
    "info": {"split": "train", "license": "CC BY", "questions": [{"not": "these"}]},
    "version": 12,
    "empty": [],
    "questions": ROWS,
    "behind": [{"more": [1, 2]}, 3, "x"],
    "last": None,
}


def opened(path, fields=(), **options):
    storage = JsonObject(str(path), **options)
    [shard] = storage.shards()
    return storage.open(shard, storage.locate(shard), fields)


def values(path, **options):
    shard = opened(path, **options)
    return [dict(shard.read(number).fields) for number in range(len(shard))]


def written(path, value, **options):
    path.write_text(json.dumps(value, **options), encoding="utf-8")
    return path


def with_keys(records, name="key"):
    return [{name: key} | record for key, record in records.items()]


@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("indent", [None, 0, 2])
def test_records_by_key_have_their_key_as_a_field(tmp_path, is_ascii, indent):
    path = written(tmp_path / "a.json", GQA, ensure_ascii=is_ascii, indent=indent)
    assert values(path) == with_keys(GQA) and values(path, key="question_id") == with_keys(GQA, "question_id")
    assert opened(path).read(2).key == "a.json[2]"
    assert isinstance(JsonObject(""), Storage)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 1000])
def test_where_blocks_end_changes_nothing(tmp_path, monkeypatch, block):
    monkeypatch.setattr(json_elements, "_BLOCK", block)
    path = written(tmp_path / "a.json", GQA, ensure_ascii=False, indent=1)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b" \n\t ")
    assert values(path) == with_keys(GQA)
    path = written(tmp_path / "a.json", CLEVR)
    assert values(path, member="questions") == ROWS


def test_the_records_of_a_member_are_those_of_a_list_or_of_an_object(tmp_path):
    path = written(tmp_path / "a.json", CLEVR, indent=1)
    assert values(path, member="questions") == ROWS
    assert values(path, member="empty") == []
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert values(path, member="questions") == ROWS
    path = written(tmp_path / "a.json", {"info": 1, "data": GQA})
    assert values(path, member="data", key="id") == with_keys(GQA, "id")


@pytest.mark.parametrize(("value", "member"), [(GQA, ""), (CLEVR, "questions"), ({"x": {"a": 1}, "data": GQA}, "data")])
def test_a_file_cut_anywhere_is_an_error_of_the_source(tmp_path, value, member):
    path = tmp_path / "a.json"
    data = json.dumps(value).encode()
    for end in range(1, len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(SourceError, match=r"a.json' is cut off or damaged in (element|member) \d.*copy it again"):
            JsonObject(str(path), member=member).locate(str(path))


@pytest.mark.parametrize(
    ("data", "member", "said"),
    [
        (b"", "", "is empty"),
        (b'[{"a": 1}]', "", "begins with '\\['.*`JsonFiles` reads lists"),
        (b'{"a": {}}{"b": {}}', "", "goes on behind the end of its object with '{\"b\""),
        (b'{"a": {},}', "", "damaged in member 2.*no key"),
        (b'{"a" {}}', "", "damaged in member 1.*no colon behind it|damaged in member 1"),
        (b'{"a": {} "b": {}}', "", "damaged in member 1.*no comma"),
        (b'{1: {}}', "", "damaged in member 1.*no key"),
        (b'{"a": {"b": \xff}}', "", "not UTF-8"),
        (b'{"a": [{}] "b": 1}', "a", "damaged in member 1.*no comma"),
        (b'{"info": 1, "scenes": []}', "questions", "no member 'questions'; it has 'info', 'scenes'"),
        (b"{}", "questions", "no member 'questions'; it has nothing"),
        (b'{"questions": 7}', "questions", "neither a list nor an object"),
        (b'{"a": 1, "b": [2]}', "", "0 records and 2 that are none, the first: member 1 is no object"),
        (b'{"1": {"key": 3}}', "", "has a field 'key' of its own; give JsonObject another name"),
        ("{}".encode("utf-16"), "", "UTF-16"),
    ],
)  # fmt: skip
def test_what_is_no_object_of_records_is_said(tmp_path, data, member, said):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(SourceError, match=said):
        JsonObject(str(tmp_path / "a.json"), member=member).locate(str(tmp_path / "a.json"))


def test_a_long_record_ends_the_scan(tmp_path, monkeypatch):
    monkeypatch.setattr(json_elements, "_BLOCK", 64)
    monkeypatch.setattr(json_elements, "MOST_BYTES", 1000)
    path = written(tmp_path / "a.json", {"1": {"a": 1}, "2": {"a": "x" * 100_000}})
    with pytest.raises(SourceError, match="member 2.*longer than"):
        JsonObject(str(path)).locate(str(path))
    # A long list before the one that is wanted is passed over element by element.
    path = written(tmp_path / "a.json", {"images": [{"a": "x" * 500}] * 20, "annotations": ROWS})
    assert values(path, member="annotations") == ROWS


@pytest.mark.slow
def test_several_megabytes_are_scanned_and_not_held(tmp_path):
    records = {f"{n:08}": {"imageId": str(n), "question": "é" * (n % 300), "answer": "no"} for n in range(25_000)}
    path = written(tmp_path / "a.json", records, ensure_ascii=False)
    assert path.stat().st_size > 6e6
    tracemalloc.start()
    located = JsonObject(str(path)).locate(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert located.records == 25_000 and peak < 4e6
    shard = JsonObject(str(path), key="id").open(str(path), located, ("id", "answer"))
    for number in (24_999, 0, 12_345):
        assert shard.read(number).fields == {"id": f"{number:08}"} | records[f"{number:08}"]


def test_records_of_other_splits_are_counted_and_left_out(tmp_path):
    books = {str(n): {"title": f"T{n}", "split": n % 3 + 1} for n in range(9)}
    storage = JsonObject(str(written(tmp_path / "a.json", books | {"x": 3})), only=("split", 1))
    located = storage.locate(storage.shards()[0])
    assert [tuple(one) for one in located.refused[:2]] == [(f"member {n}", "not of split 1") for n in (2, 3)]
    assert [one["key"] for one in values(tmp_path / "a.json", only=("split", 1))] == ["0", "3", "6"]
    source = ShardedSource(storage, PlainText("title"), index=str(tmp_path / "index"))
    assert {(one.reason, one.count) for one in source.open().left_out} == {("not of split 1", 6), ("no object", 1)}
    with pytest.raises(SourceError, match="0 records and 10 that are none"):
        JsonObject(str(tmp_path / "a.json"), only=("split", "1")).locate(str(tmp_path / "a.json"))


def test_a_field_that_no_record_has_is_an_error_of_the_source(tmp_path):
    path = written(tmp_path / "a.json", GQA)
    assert len(opened(path, ("key", "imageId", "n"))) == 4
    with pytest.raises(SourceError, match="no record of .* has 'image_id'; the fields found: 'key', 'imageId', "):
        opened(path, ("image_id",))


def test_a_file_that_changed_behind_the_index_costs_its_records(tmp_path):
    path = written(tmp_path / "a.json", {"1": {"a": 11}, "2": {"a": 22}})
    shard = opened(path)
    path.write_bytes(path.read_bytes().replace(b"22}", b"22,"))
    assert shard.read(0).fields == {"key": "1", "a": 11}
    with pytest.raises(RecordError, match=r"a.json\[1\].*index the source again"):
        shard.read(1)


def test_files_of_lists_name_the_storage_of_objects(tmp_path):
    path = written(tmp_path / "a.json", GQA)
    with pytest.raises(SourceError, match='whose "07333408" is an object.*`JsonObject` reads'):
        JsonFiles(str(path)).locate(str(path))
    path = written(path, {"dataset_name": "DocVQA", "data": ROWS})  # in one line it may be a record
    storage = JsonFiles(str(path))
    with pytest.raises(SourceError, match="the fields found: 'dataset_name', 'data'; .*`JsonObject` reads"):
        storage.open(str(path), storage.locate(str(path)), ("question",))
