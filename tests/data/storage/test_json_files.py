"""JSON files are scanned once in blocks; a record is read by its range; what is torn, cut or something else is said."""

import json
import os
import random
import tracemalloc

import numpy as np
import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.storage import json_elements
from xgenmm_jax.data.storage.base import Storage
from xgenmm_jax.data.storage.json_files import JsonFiles

NASTY = [
    {"id": "1", "turns": [{"from": "human", "value": '<image>\nSay "[{" \\" and }]'}, {"from": "gpt", "value": "]"}]},
    {"id": "2", "text": "\\", "deep": [[[{"a": [1, -2.5e-7, None, True]}]], {}, []], "": "{"},
    {"id": "3", "text": "caf\u00e9 \u65e5\u672c \U0001f600 \u2028 \u0085 \x7f", "n": 12345678901234567890},
    {},
    {"id": "5", "text": "\\\\\" ,\n\t[[[{{{\r\n", "x": {"y": {"z": [{"w": "}"}]}}},
]  # fmt: skip


def opened(path, fields=()):
    storage = JsonFiles(str(path))
    [shard] = storage.shards()
    return storage.open(shard, storage.locate(shard), fields)


def values(path):
    shard = opened(path)
    return [dict(shard.read(number).fields) for number in range(len(shard))]


def refusals(path):
    return [tuple(one) for one in JsonFiles(str(path)).locate(str(path)).refused]


def lines_of(rows, **options):
    return "".join(json.dumps(row, **options) + "\n" for row in rows).encode()


def llava(count, seed=0):
    """Rows of LLaVA's form, some of them without ASCII."""
    rng = random.Random(seed)
    words = ["a", "red", "circle", '"square"', "caf\u00e9", "{x}", "\U0001f600", "[0.1, 0.2]"]
    return [
        {
            "id": f"{number:012}",
            "image": f"coco/train2017/{number:012}.jpg",
            "conversations": [
                {"from": ("human", "gpt")[turn % 2], "value": " ".join(rng.choices(words, k=rng.randint(1, 60)))}
                for turn in range(rng.randint(1, 6))
            ],
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("indent", [None, 0, 2])
def test_objects_of_a_list_are_read_by_number(tmp_path, is_ascii, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(NASTY, ensure_ascii=is_ascii, indent=indent), encoding="utf-8")
    shard = opened(path)
    assert len(shard) == 5 and isinstance(JsonFiles(""), Storage)
    for number in (4, 0, 2, 1, 3):
        assert shard.read(number).fields == NASTY[number]
    assert shard.read(2).key == "a.json[2]"


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_objects_of_lines_are_read_by_number(tmp_path, name, is_ascii):
    (tmp_path / name).write_bytes(lines_of(NASTY, ensure_ascii=is_ascii))
    assert values(tmp_path / name) == NASTY


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("is_list", [True, False])
def test_where_blocks_end_changes_nothing(tmp_path, monkeypatch, block, is_list):
    monkeypatch.setattr(json_elements, "_BLOCK", block)
    rows = NASTY + llava(5)
    data = json.dumps(rows, ensure_ascii=False, indent=1).encode() if is_list else lines_of(rows, ensure_ascii=False)
    path = tmp_path / "a.json"
    path.write_bytes(data + b" \n\t ")
    assert values(path) == rows


@pytest.mark.parametrize("is_list", [True, False])
def test_byte_order_marks_and_line_ends_of_windows_are_passed_over(tmp_path, is_list):
    data = json.dumps(NASTY, indent=1).encode() if is_list else b"\n \n" + lines_of(NASTY).replace(b"\n", b"\n\n  \n")
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert values(path) == NASTY and not refusals(path)


def test_several_megabytes_are_scanned_exactly_and_not_held(tmp_path):
    """Both forms give the same records; of 6 MB under 4 are in memory at a time, however long the file."""
    rows = llava(7_500)
    lists, lines = tmp_path / "a.json", tmp_path / "a.jsonl"
    lists.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    lines.write_bytes(lines_of(rows, ensure_ascii=False))
    assert lines.stat().st_size > 6e6
    for path in (lists, lines):
        tracemalloc.start()
        located = JsonFiles(str(path)).locate(str(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert located.records == 7_500 and located.arrays["offset"].dtype == np.int64
        assert peak < 4e6
        shard = JsonFiles(str(path)).open(str(path), located, ("id", "conversations"))
        for number in (7_499, 0, 2_222, 5_123):
            assert shard.read(number).fields == rows[number]
        # Objects follow one another: what lies between them is separators alone.
        ends = located.arrays["offset"] + located.arrays["size"]
        gaps = located.arrays["offset"][1:] - ends[:-1]
        assert set(gaps.tolist()) == ({2} if path == lists else {1})


def test_lines_that_are_no_object_are_refused_by_number(tmp_path):
    path = tmp_path / "a.jsonl"
    good = b'{"a": 1}'
    lines = [
        good,
        b'{"a": "to',
        b"",
        b"[1]",
        good,
        b"7",
        b'{"a": "\xff"}',
        b'{"a": 1}{"a": 2}',
        b"[" * 100_000,
        good[:5],
    ]
    path.write_bytes(b"\n".join(lines))
    assert values(path) == [{"a": 1}] * 2
    assert refusals(path) == [
        ("line 2", "no JSON, or torn"), ("line 4", "no object"), ("line 6", "no object"), ("line 7", "no UTF-8"),
        ("line 8", "no JSON, or torn"), ("line 9", "nested too deeply"), ("line 10", "no JSON, or torn"),
    ]  # fmt: skip


@pytest.mark.parametrize("block", [16, 1 << 20])
def test_long_lines_are_refused_and_not_held(tmp_path, monkeypatch, block):
    monkeypatch.setattr(json_elements, "_BLOCK", block)
    monkeypatch.setattr(json_elements, "MOST_BYTES", 200)
    path = tmp_path / "a.jsonl"
    rows = [{"a": 1}, {"a": "x" * 190}, {"a": "x" * 900}, {"a": 2}, {"a": "x" * 201}]
    path.write_bytes(lines_of(rows))
    assert values(path) == [rows[0], rows[1], rows[3]]
    assert [name for name, reason in refusals(path)] == ["line 3", "line 5"]


def test_elements_of_a_list_that_are_no_object_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[1, {"a": [2]}, "x, {}", [{}], null, {"a": 3}]')
    assert values(path) == [{"a": [2]}, {"a": 3}]
    assert refusals(path) == [(f"element {number}", "no object") for number in (1, 3, 4, 5)]


def test_an_empty_list_has_no_records(tmp_path):
    (tmp_path / "a.json").write_text(" [\n] \n")
    assert values(tmp_path / "a.json") == []


def test_a_list_cut_anywhere_is_an_error_of_the_source(tmp_path):
    path = tmp_path / "a.json"
    data = json.dumps(NASTY).encode()
    for end in range(1, len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(SourceError, match=r"a.json' is cut off or damaged in element \d.*copy it again"):
            JsonFiles(str(path)).locate(str(path))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b'[{"a": 1},]', "damaged in element 2"),
        (b'[{"a": 1} {"a": 2}]', "damaged in element 1"),
        (b'[{"a": }]', "damaged in element 1"),
        (b'[{"a": 1}]]', "goes on behind the end of its list with ']'"),
        (b'[{"a": 1}]\n[{"a": 2}]', "goes on behind the end"),
        (b'[{"a": "\xff"}]', "not UTF-8"),
        (b"[" + b"[" * 100_000, "nested too deeply"),
        ('[{"a": 1}]'.encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08\x00" + b"x" * 20, "compressed; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no JSON .it begins 'version https"),
        (b'{"07333408": {"imageId": "2375429"}, "2": {"imageId": "1"}}', "one object, whose \"07333408\" is an object"),
        (b'{\n "07333408": {\n "imageId": "2375429"}}', "one object, whose \"07333408\" is an object"),
        (b'{"image_urls": ["u", "v"], "user_ids": ["1", "2"], "captions": ["", ""]}', "\"image_urls\" is a list"),
    ],
)  # fmt: skip
def test_what_is_no_list_and_no_lines_is_said(tmp_path, data, said):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=said):
        JsonFiles(str(path)).locate(str(path))


def test_a_long_element_of_a_list_ends_the_scan(tmp_path, monkeypatch):
    monkeypatch.setattr(json_elements, "_BLOCK", 64)
    monkeypatch.setattr(json_elements, "MOST_BYTES", 1000)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": 1}, {"a": "x" * 100_000}]))
    with pytest.raises(SourceError, match="element 2.*longer than"):
        JsonFiles(str(path)).locate(str(path))


def test_one_record_on_one_line_is_a_record(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"id": "1", "conversations": [], "image": "a.jpg"}')
    assert len(values(path)) == 1


def test_lines_of_something_else_are_an_error_of_the_source(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises(SourceError, match="0 records and 3 that are none, the first: line 1 is no JSON"):
        JsonFiles(str(path)).locate(str(path))


def test_compressed_files_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    for name in ("b.jsonl.gz", "b.json.zst"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(SourceError, match=rf"{name}' is compressed.*unpack it"):
            JsonFiles(f"{tmp_path}/*").shards()
        (tmp_path / name).unlink()
    assert len(JsonFiles(f"{tmp_path}/*").shards()) == 1


def test_a_field_that_no_record_has_is_an_error_of_the_source(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of([{"a": 1}, {"a": 1, "b": 2}]))
    assert len(opened(path, ("a", "b"))) == 2
    with pytest.raises(
        SourceError, match="no record of .* has 'c'; the fields found: 'a', 'b'; the ones wanted: 'a', 'c'"
    ):
        opened(path, ("a", "c"))
    storage = JsonFiles(str(path))
    storage.open(str(path), storage.locate(str(path)), ("a",), ("c",))


def test_a_file_that_changed_behind_the_index_costs_its_records(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of([{"a": 11}, {"a": 22}, {"a": 33}]))
    shard = opened(path)
    path.write_bytes(path.read_bytes().replace(b"22}", b"22,").replace(b'{"a": 33}', b"[1,2,3,4]"))
    assert shard.read(0).fields == {"a": 11}
    with pytest.raises(RecordError, match=r"a.jsonl\[1\].*index the source again"):
        shard.read(1)
    with pytest.raises(RecordError, match="it is list, wanted an object"):
        shard.read(2)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="copy it again"):
        shard.read(0)


def test_a_name_of_no_file_is_told_the_first_ends_alone(tmp_path):
    """It listed 24, of which those of packed files are refused."""
    with pytest.raises(SourceError, match=r"ends in .json or .jsonl or .ndjson or .json.gz \.\.\.\. Check"):
        JsonFiles(str(tmp_path / "mine.txt")).shards()


def test_lone_surrogates_become_replacement_characters(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(r'[{"a": "\ud800x \ud83d\ude00"}]')
    assert values(path) == [{"a": "\ufffdx \U0001f600"}]


def test_storages_open_images_relative_to_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(jpeg((31, 17)))
    (tmp_path / "a.json").write_text(json.dumps([{"image": "a.jpg"}]))
    os.symlink(tmp_path / "images/a.jpg", tmp_path / "images/link.jpg")
    monkeypatch.chdir(tmp_path)
    storage = JsonFiles("a.json", images="images")
    raw = storage.open("a.json", storage.locate("a.json"), ()).read(0)
    assert raw.image(raw.text("image")).size_px == raw.image("link.jpg").size_px == (31, 17)
    with pytest.raises(SourceError, match="no folder 'pictures'"):
        JsonFiles("a.json", images="pictures").open("a.json", storage.locate("a.json"), ())
    raw = JsonFiles("a.json").open("a.json", storage.locate("a.json"), ()).read(0)
    with pytest.raises(ValueError, match="has no folder of images"):
        raw.image("a.jpg")
