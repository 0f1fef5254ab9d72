"""Rows of Parquet files by number, the columns that are asked for alone, from any thread, by path and by ranges."""

import json
import logging
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers import caption_sets
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage import parquet, range_file
from xgenmm_jax.data.storage.base import Storage
from xgenmm_jax.data.storage.images import image_bytes
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.shared_cache import SharedCache


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch):
    cache = SharedCache(parquet.MOST_CACHED_BYTES, lambda table: table.nbytes)
    monkeypatch.setattr(parquet, "_groups", cache)


@pytest.fixture(params=["path", "ranges"])
def way(request, monkeypatch):
    """Files are opened by pyarrow; or by ranges, as those of URLs are."""
    if request.param == "ranges":
        monkeypatch.setattr(parquet.files, "is_remote", lambda path: True)


def opened(path, fields=(), optional=()):
    storage = Parquet(str(path))
    [shard] = storage.shards()
    return storage.open(shard, storage.locate(shard), fields, optional)


def ocr_rows(count):
    """Rows of BLIP3-OCR-200M: JSON strings, lists of lists, pandas' index."""
    caption = {"text": "caf\u00e9", "granularity": 0, "include_datacomp_raw_cap": False}
    return [
        {
            "uid": f"{number:032x}",
            "face_bboxes": [[0.1, 0.2, 0.3, number / count]] * (number % 3),
            "url": f"http://example.com/{number}.jpg",
            "key": f"{number:012}",
            "captions": json.dumps([caption, {**caption, "granularity": number % 6}]),
            "metadata": json.dumps({"length": 0, "entries": [], "uid": f"datacomp_ocr_{number:032x}"}),
            "__index_level_0__": number,
        }
        for number in range(count)
    ]


def images_table():
    """Hugging Face's forms: an image, a list of images with nulls, turns; one row without an image."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = [{"bytes": jpeg((9 + number, 8), number), "path": f"{number}.jpg"} for number in range(4)]
    columns = {
        "image": pa.array([*pictures[:3], None], kind),
        "images": pa.array([pictures[:2], [], [None, pictures[3]], None], pa.list_(kind)),
        "texts": pa.array([[{"user": "Q?", "assistant": str(number), "source": "x"}] for number in range(4)]),
        "answer": pa.array([0, None, 2, 3]),
        "a.b": pa.array(["w", "x", "y", "z"]),
    }
    return pa.table(columns), pictures


def test_rows_are_read_by_number(tmp_path, way):
    rows = ocr_rows(100)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "001.parquet", row_group_size=7)
    shard = opened(tmp_path / "001.parquet")
    assert len(shard) == 100 and isinstance(Parquet(""), Storage)
    for number in np.random.default_rng(0).permutation(100).tolist():
        raw = shard.read(number)
        assert raw.fields == rows[number] and raw.key == f"001.parquet[{number}]"
    for number in (-1, 100):
        with pytest.raises(IndexError):
            shard.read(number)
    shard.close()


def test_counting_reads_the_footer_alone(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ocr_rows(50)), path)
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    path.write_bytes(b"PAR1" + b"x" * (len(data) - footer - 4) + data[-footer:])
    located = Parquet(str(path)).locate(str(path))
    assert (located.records, located.arrays, located.refused) == (50, {}, ())


def test_only_the_wanted_columns_are_read(tmp_path, way):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ocr_rows(20)), path)
    shard = opened(path, ("captions", "uid"), ("url", "width"))
    assert list(shard.read(3).fields) == ["captions", "uid", "url"]
    assert shard._group(0).column_names == ["captions", "uid", "url"]
    assert opened(path, (), ("width",)).read(3).fields == {}


def test_images_of_hugging_face_give_bytes_and_path(tmp_path, way):
    table, pictures = images_table()
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    shard = opened(tmp_path / "a.parquet", ("image", "images", "texts"), ("answer",))
    raw = shard.read(1)
    assert raw.fields["image"] == pictures[1] and raw.fields["texts"][0]["assistant"] == "1"
    assert image_from_bytes(image_bytes(raw.fields["image"]), raw.key).size_px == (10, 8)
    assert shard.read(2).fields["images"] == [None, pictures[3]]
    last = shard.read(3).fields
    assert last["image"] is None and last["images"] is None and last["answer"] == 3


def test_members_of_structs_are_columns(tmp_path, way):
    table, pictures = images_table()
    pq.write_table(table, tmp_path / "a.parquet")
    shard = opened(tmp_path / "a.parquet", ("image.bytes", "a.b"), ("image.size", "answer.x", "images.bytes"))
    assert shard.read(1).fields == {"image.bytes": pictures[1]["bytes"], "a.b": "x"}
    assert shard.read(3).fields == {"image.bytes": None, "a.b": "z"}
    assert shard._group(0).schema.field("image").type.num_fields == 1
    shard = opened(tmp_path / "a.parquet", ("image.path", "image"))
    assert shard.read(0).fields == {"image.path": "0.jpg", "image": pictures[0]}


def test_a_column_that_is_missing_is_an_error_of_the_source(tmp_path):
    table, _ = images_table()
    pq.write_table(table.select(["answer", "image"]), tmp_path / "a.parquet")
    found, wanted = "'answer', 'image'", "'answer', 'image.size', 'x'"
    with pytest.raises(SourceError) as raised:
        opened(tmp_path / "a.parquet", ("answer", "image.size", "x"))
    said = f"no column 'image.size', 'x'; the columns found: {found}; the ones wanted: {wanted}."
    assert str(raised.value).endswith(said)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_an_error_of_the_source(tmp_path, way, share):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ocr_rows(100)), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SourceError, match=r"a.parquet' is not whole, or not Parquet.*copy it again"):
        Parquet(str(path)).locate(str(path))
    path.write_bytes(b'{"a": 1}\n' * 100)
    with pytest.raises(SourceError, match="not Parquet"):
        Parquet(str(path)).locate(str(path))


def test_a_damaged_row_group_is_an_error_of_the_source(tmp_path, way):
    path = tmp_path / "a.parquet"
    options = {"row_group_size": 50, "write_page_checksum": True, "compression": "none", "use_dictionary": False}
    pq.write_table(pa.Table.from_pylist(ocr_rows(100)), path, **options)
    place = pq.read_metadata(path).row_group(1).column(2).data_page_offset + 200
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    shard = opened(path)
    assert shard.read(49).fields == ocr_rows(100)[49]
    with pytest.raises(SourceError, match="row group 1 of .*a.parquet"):
        shard.read(50)


def test_a_file_that_is_gone_is_an_error_of_the_source(tmp_path, way):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ocr_rows(10)), path)
    located = Parquet(str(path)).locate(str(path))
    path.unlink()
    with pytest.raises(SourceError, match="no file"):
        Parquet(str(path)).open(str(path), located, ())


def test_a_file_cut_while_it_is_open_is_an_error_of_the_source(tmp_path, way, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ocr_rows(1000)), path, row_group_size=100)
    monkeypatch.setattr(range_file, "READ_AHEAD", 1000)
    shard = opened(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SourceError, match=r"a.parquet.*copy it again"):
        shard.read(950)


def test_a_file_of_other_rows_than_the_index_is_an_error_of_the_source(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ocr_rows(10)), path)
    located = Parquet(str(path)).locate(str(path))
    pq.write_table(pa.Table.from_pylist(ocr_rows(11)), path)
    with pytest.raises(SourceError, match="has 11 rows and its index 10; index the source again"):
        Parquet(str(path)).open(str(path), located, ())


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "a.parquet"
    for number in range(3):
        pq.write_table(pa.table({"a": [number]}), path)
        assert opened(path).read(0).fields == {"a": number}


def test_a_value_that_is_none_of_python_costs_its_record(tmp_path):
    good, bad = "caf\u00e9".encode(), b"\xff\xfe"
    text = pa.Array.from_buffers(pa.string(), 3, pa.array([good, bad, good]).buffers())
    pq.write_table(pa.table({"text": text, "n": [1, 2, 3]}), tmp_path / "a.parquet")
    shard = opened(tmp_path / "a.parquet")
    assert shard.read(2).text("text") == "caf\u00e9"
    with pytest.raises(RecordError, match=r"a.parquet\[1\]: 'text' cannot be read"):
        shard.read(1)


class Pickled(pa.ExtensionType):
    """As Hugging Face's Array2D: an extension type whose reader runs code of its own."""

    def __init__(self):
        super().__init__(pa.list_(pa.int64()), "datasets.features.features.Array2DExtensionType")

    def __arrow_ext_serialize__(self):
        return b"{}"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        raise AssertionError("was read")


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("is_known", [False, True])
def test_extension_types_are_refused_where_they_are_asked_for(tmp_path, is_nested, is_known):
    values = pa.array([b"0" * 16], pa.uuid())
    if not is_known:
        values = pa.ExtensionArray.from_storage(Pickled(), pa.array([[1]]))
    if is_nested:
        struct = pa.StructArray.from_arrays([values], names=["x"])
        values = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), struct)
    pq.write_table(pa.table({"e": values, "n": [1]}), tmp_path / "a.parquet")
    assert opened(tmp_path / "a.parquet", ("n",)).read(0).fields == {"n": 1}
    for fields in ((), ("e",)):
        with pytest.raises(SourceError, match="'e' of .* is of Arrow's extension type '(arrow.uuid|datasets)"):
            opened(tmp_path / "a.parquet", fields)


def test_json_of_parquet_itself_is_text(tmp_path):
    pq.write_table(pa.table({"j": pa.array(['{"a": 1}'], pa.json_())}), tmp_path / "a.parquet", store_schema=False)
    assert opened(tmp_path / "a.parquet").read(0).json("j") == {"a": 1}


def test_row_groups_are_shared_by_threads_and_open_shards(tmp_path, way, monkeypatch):
    """Eight threads read all rows of two open shards of one file: each of ten row groups is read once."""
    rows = ocr_rows(200)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=20)
    shards = [opened(tmp_path / "a.parquet") for _ in range(2)]
    reads, failures = [], []
    read = parquet.ParquetShard._group
    monkeypatch.setattr(parquet.ParquetShard, "_group", lambda self, group: reads.append(group) or read(self, group))

    def work(seed):
        for number in np.random.default_rng(seed).permutation(200).tolist():
            if shards[seed % 2].read(number).fields != rows[number]:
                failures.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and sorted(reads) == list(range(10))


def test_row_groups_in_memory_are_bounded(tmp_path, monkeypatch):
    rows = ocr_rows(200)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=20)
    shard = opened(tmp_path / "a.parquet")
    cache = SharedCache(3 * shard._group(9).nbytes, lambda table: table.nbytes)
    monkeypatch.setattr(parquet, "_groups", cache)
    for number in range(200):
        assert shard.read(number).fields == rows[number]
        assert cache._bytes == sum(table.nbytes for table in cache._kept.values()) <= cache._most_bytes
    assert len(cache._kept) >= 2


def test_empty_row_groups_and_empty_files_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"a": [1, 2, 3]})
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table[:0], table[:2], table[:0], table[2:], table[:0]):
            writer.write_table(part)
    shard = opened(path)
    assert [shard.read(number).fields["a"] for number in range(3)] == [1, 2, 3]
    pq.write_table(table[:0], path)
    assert len(opened(path)) == 0


def test_large_row_groups_are_warned_of(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(parquet, "LARGE_GROUP_BYTES", 1000)
    pq.write_table(pa.Table.from_pylist(ocr_rows(100)), tmp_path / "a.parquet", row_group_size=40)
    with caplog.at_level(logging.WARNING):
        Parquet(str(tmp_path / "a.parquet")).locate(str(tmp_path / "a.parquet"))
    assert "3 row groups of more than" in caplog.text and "xgenmm data pack" in caplog.text


def fetched_rows(count):
    """A table of img2dataset with the images inside: every third key failed, and has a null for its image."""
    rows = []
    for number in range(count):
        row = {"url": f"http://example.com/{number}.jpg", "caption": f"a circle {number}", "key": f"{number:09}"}
        failed = ("failed_to_download", "failed_to_resize")[number % 2] if number % 3 == 1 else None
        row |= {"status": failed or "success", "error_message": failed and "HTTP Error 404"}
        row |= {"width": None if failed else 9, "height": None if failed else 8 + number}
        rows.append(row | {"jpg": None if failed else jpeg((9, 8 + number), number)})
    return rows


def test_rows_of_img2dataset_without_an_image_are_no_records_and_counted(tmp_path, way):
    path, rows = tmp_path / "00000.parquet", fetched_rows(20)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    located = Parquet(str(path)).locate(str(path))
    used = [row for row in rows if row["status"] == "success"]
    assert located.records == len(used) == 13 and located.arrays["row"].tolist()[:4] == [0, 2, 3, 5]
    assert [one.name for one in located.refused] == [row["key"] for row in rows if row["status"] != "success"]
    shard = opened(path, ("caption",), ("jpg",))
    assert [shard.read(number).fields["caption"] for number in range(len(shard))] == [row["caption"] for row in used]
    assert shard.read(3).fields["jpg"] == rows[5]["jpg"] and shard.read(3).key == "00000.parquet[3]"
    with pytest.raises(IndexError):
        shard.read(13)


def test_an_index_counts_the_rows_of_img2dataset_that_failed(tmp_path):
    """Each of them, a third of a download of today, was an unreadable record, and the run ended of too many."""
    pq.write_table(pa.Table.from_pylist(fetched_rows(20)), tmp_path / "00000.parquet")
    source = ShardedSource(Parquet(str(tmp_path / "*.parquet")), caption_sets.DOWNLOADED_TABLE)
    records = source.open()
    assert {(one.reason, one.count) for one in records.left_out} == {
        ("not downloaded", 3), ("downloaded, and no image that can be resized", 4)
    }  # fmt: skip
    for number in range(len(records)):
        record = records.record(number, np.random.default_rng(0))
        assert record.image.load().size == record.image.size_px
    # A download that was made again behind the index.
    rows = fetched_rows(20)
    pq.write_table(pa.Table.from_pylist(rows[:9]), tmp_path / "00000.parquet")
    with pytest.raises(SourceError, match=r"has [\d,]+ bytes.*before|is not of this source"):
        source.open()


def test_a_table_with_a_status_of_its_own_keeps_all_rows(tmp_path):
    rows = [{"key": "1", "status": "draft", "text": "x"}, {"key": "2", "status": "success", "text": "y"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert Parquet(str(tmp_path / "a.parquet")).locate(str(tmp_path / "a.parquet")).records == 2
