"""img2dataset's table beside a tar gives the sizes that reading the tar gives, or is an error that names both."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_rows import GROUNDING, OCR
from tar_files import jpeg, write_tar

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.index.indexing import index_source
from xgenmm_jax.data.index.measure import Measurer, measure_shard
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.grounding import Grounding
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.readers.ocr import Ocr
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.base import Shard
from xgenmm_jax.data.storage.tars import Tars, TarShard
from xgenmm_jax.data.text.chat import PHI3_STYLE
from xgenmm_jax.data.text.tokenizer import train_tokenizer

RECORDS = 9
FAILED = {2, 3, 7}
CAPTIONS = [
    "a red circle",
    "one <image> tag",
    "x",
    "y",
    "a",
    "Größe: 5 µm",
    " ",
    "b",
    "the blue square",
    "c",
    None,
    "e",
]
SCHEMA = pa.schema(
    [("url", pa.string()), ("caption", pa.string()), ("uid", pa.string()), ("key", pa.string())]
    + [("status", pa.string()), ("error_message", pa.string())]
    + [(name, pa.int32()) for name in ("width", "height", "original_width", "original_height")]
    + [("exif", pa.string()), ("sha256", pa.string())]
)


@pytest.fixture(scope="module")
def measurer(tmp_path_factory) -> Measurer:
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    return Measurer(train_tokenizer(["a red circle and the blue square"] * 9, path, pieces=400), PHI3_STYLE)


def downloaded(folder: Path, suffix: str = "jpg", **columns: list) -> Path:
    """A tar of img2dataset and its table: twelve keys were tried, three failed; keys end in order of arrival."""
    rows, samples = [], []
    for number in np.random.default_rng(0).permutation(RECORDS + len(FAILED)).tolist():
        key, size = f"{number:09}", (20 + number, 40 - number)
        row = dict.fromkeys(SCHEMA.names) | {"url": f"http://example.org/{key}.jpg", "caption": CAPTIONS[number]}
        row |= {"key": key, "status": "success", "width": size[0], "height": size[1], "original_width": 400}
        if number in FAILED:
            row |= {"status": "failed_to_download", "error_message": "HTTP Error 404", "width": None, "height": None}
        else:
            text = "" if row["caption"] is None else row["caption"]
            samples.append((key, {suffix: jpeg(size, number), "txt": text.encode(), "json": b"{}"}))
        rows.append(row)
    path = write_tar(folder / "00000.tar", samples)
    write_table(path, pa.Table.from_pylist(rows, SCHEMA))
    return path


def annotated(folder: Path, columns: list[dict]) -> Path:
    """A tar of img2dataset and its table as save_additional_columns makes them, without a caption; two keys failed."""
    rows, samples = [], []
    for number, row in enumerate(columns):
        key, size = f"{number:09}", (20 + number, 40 - number)
        row = row | {"key": key, "status": "success", "error_message": None, "width": size[0], "height": size[1]}
        rows.append(row)
        samples.append((key, {"jpg": jpeg(size, number), "json": json.dumps(row, indent=4).encode()}))
        if number in (1, 2):
            why = ("failed_to_download", "failed_to_resize")[number - 1]
            rows.append(row | {"key": f"9{number:08}", "status": why, "width": None, "height": None})
    path = write_tar(folder / "00000.tar", samples)
    write_table(path, pa.Table.from_pylist(rows))
    return path


def table_of(path: Path) -> pa.Table:
    return pq.read_table(path.with_suffix(".parquet"))


def write_table(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path.with_suffix(".parquet"))


def opened(path: Path, table: bool = True) -> Shard:
    storage = Tars(str(path), table=table)
    return storage.open(str(path), storage.locate(str(path)), ())


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_sizes_are_those_that_the_images_themselves_have(tmp_path, measurer, suffix, monkeypatch):
    path = downloaded(tmp_path, suffix)
    from_images = measure_shard(opened(path, table=False), ImageCaptions(), measurer)
    reads = []
    read = TarShard.read
    monkeypatch.setattr(TarShard, "read", lambda self, index: reads.append(index) or read(self, index))
    from_table = measure_shard(opened(path), ImageCaptions(), measurer)
    assert reads == [0]
    for ours, theirs in zip(from_table.shapes, from_images.shapes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(from_table.choice_ends, from_images.choice_ends)
    assert from_table.bad == from_images.bad and len(from_table.bad) == 2 and from_table.records == RECORDS


OF_OCR = [OCR, OCR | {"metadata": "{"}, OCR | {"metadata": None}, OCR | {"metadata": OCR["metadata"] + " "}]
OTHER_CAPTIONS = ("[]", str([["a \u2260 <image>", 0, False]]))
OF_GROUNDING = [GROUNDING, *(GROUNDING | {"captions": captions} for captions in OTHER_CAPTIONS)]


@pytest.mark.parametrize(
    ("reader", "columns", "bad"),
    [
        (Ocr(), OF_OCR, 2),
        (Ocr(3, raw_caption=True, filler=True), OF_OCR, 2),
        (Ocr(1, raw_caption=True, raw_caption_field="url"), OF_OCR, 2),
        (Ocr(5, filler=True, source="captions"), OF_OCR, 0),
        (Grounding(), OF_GROUNDING, 1),
        (Grounding(2, boxes="clip"), OF_GROUNDING, 2),
    ],
)
def test_annotations_are_measured_by_the_table_as_by_the_json(tmp_path, measurer, reader: Reader, columns, bad):
    path = annotated(tmp_path, columns)
    from_json, from_table = (measure_shard(opened(path, table), reader, measurer) for table in (False, True))
    for ours, theirs in zip(from_table.shapes, from_json.shapes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert from_table.bad == from_json.bad and len(from_table.bad) == bad and from_table.records == len(columns)


def test_annotations_of_another_tar_are_an_error_that_names_both(tmp_path, measurer):
    path = annotated(tmp_path, OF_OCR)
    whole = table_of(path)
    write_table(path, whole.drop_columns(["metadata"]))
    with pytest.raises(SourceError, match=r"'metadata' is read of '.*00000.tar', which the table .* does not tell"):
        measure_shard(opened(path), Ocr(), measurer)
    rows = whole.to_pylist()
    write_table(path, pa.Table.from_pylist([rows[0] | {"metadata": "{}"}, *rows[1:]]))
    with pytest.raises(SourceError, match=r"not of each other: 'metadata' of the first sample differs; copy both"):
        measure_shard(opened(path), Ocr(), measurer)
    # A column that was put into the table later, and that no sample has.
    write_table(path, pa.Table.from_pylist([row | {"alt": "a red bus"} for row in rows]))
    reader = Ocr(raw_caption=True, raw_caption_field="alt")
    with pytest.raises(SourceError, match=r"'alt' is a column of .*00000.parquet', and the first sample of .* no json"):
        measure_shard(opened(path), reader, measurer)


def test_keys_that_failed_are_counted_by_reason(tmp_path):
    path = annotated(tmp_path, OF_OCR)
    source = ShardedSource(Tars(str(path), table=True), Ocr())
    counted = {"not downloaded": 1, "downloaded, and no image that can be resized": 1}
    assert index_source(source, None).refused == counted
    assert {skip.reason: skip.count for skip in source.open().left_out} == counted
    rows = table_of(path).to_pylist()
    write_table(path, pa.Table.from_pylist([row | {"status": row["status"][:7]} for row in rows]))
    located = Tars(str(path), table=True).locate(str(path))
    assert [tuple(one) for one in located.refused] == [
        (key, "without the status of an image") for key in ("900000001", "900000002")
    ]


def test_records_are_read_from_the_tar(tmp_path):
    path = downloaded(tmp_path)
    opened_by = [
        ShardedSource(Tars(str(path), table=table), ImageCaptions(), index=str(tmp_path / name)).open()
        for table, name in ((True, "with"), (False, "without"))
    ]
    for number in range(3):
        ours, theirs = (records.record(number, np.random.default_rng(0)) for records in opened_by)
        assert (ours.id, ours.text) == (theirs.id, theirs.text)
        assert ours.image.load().tobytes() == theirs.image.load().tobytes()


def test_floats_of_early_versions_are_sizes(tmp_path, measurer):
    path = downloaded(tmp_path)
    whole = measure_shard(opened(path), ImageCaptions(), measurer)
    table = table_of(path)
    for name in ("width", "height"):
        number = table.schema.get_field_index(name)
        table = table.set_column(number, name, table[name].cast(pa.float64()))
    write_table(path, table)
    floats = measure_shard(opened(path), ImageCaptions(), measurer)
    np.testing.assert_array_equal(whole.shapes.image_px, floats.shapes.image_px)


def changed(path: Path, column: str, values: dict[int, object]) -> None:
    """Writes the table with other values at some of its successful rows."""
    rows = table_of(path).to_pylist()
    used = [row for row in rows if row["status"] == "success"]
    for number, value in values.items():
        used[number][column] = value
    write_table(path, pa.Table.from_pylist(rows, SCHEMA))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("key", {4: "000000099"}, "number 4 of the table, '000000099', is another one in the tar"),
        ("status", {1: "failed_to_resize"}, "they have 9 and 8 images, number 1 of the table"),
        ("status", {8: "failed_to_resize"}, "they have 9 and 8 images; copy both again"),
    ],
)
def test_a_table_of_another_tar_is_an_error_that_names_both(tmp_path, column, values, said):
    path = downloaded(tmp_path)
    changed(path, column, values)
    with pytest.raises(SourceError, match=r"00000.tar' and the table '.*00000.parquet' are not of each other") as error:
        opened(path)
    assert said in str(error.value)
    assert len(opened(path, table=False)) == RECORDS


def test_a_table_that_changed_behind_the_index_is_an_error_that_names_both(tmp_path, measurer):
    path = downloaded(tmp_path)
    shard = opened(path)
    changed(path, "key", {5: "000000099"})
    with pytest.raises(SourceError, match=r"00000.tar' and the table '.*parquet' are not of each other: .* number 5"):
        measure_shard(shard, ImageCaptions(), measurer)


def test_a_tar_that_was_walked_without_its_table_is_compared_with_it(tmp_path, measurer):
    """The index keeps where samples lie when the source's options change."""
    path = downloaded(tmp_path)
    located = Tars(str(path)).locate(str(path))
    shard = Tars(str(path), table=True).open(str(path), located, ())
    assert measure_shard(shard, ImageCaptions(), measurer).records == RECORDS
    changed(path, "key", {5: "000000099"})
    with pytest.raises(SourceError, match="are not of each other"):
        measure_shard(shard, ImageCaptions(), measurer)


@pytest.mark.parametrize("size", [(None, 30), (0, 30), (-4, 30), (20_000, 20_000)])
def test_a_size_that_no_image_has_costs_its_record(tmp_path, measurer, size):
    path = downloaded(tmp_path)
    changed(path, "width", {0: size[0]})
    changed(path, "height", {0: size[1]})
    shard = opened(path).without_pixels(("txt", "jpg"))
    with pytest.raises(RecordError, match="00000.tar/0000000"):
        shard.read(0)
    assert 0 in measure_shard(opened(path), ImageCaptions(), measurer).bad


def test_tables_that_are_missing_cut_or_of_another_form_are_errors_of_the_source(tmp_path):
    path = downloaded(tmp_path)
    table, file = table_of(path), path.with_suffix(".parquet")
    write_table(path, table.drop_columns(["width", "status"]))
    with pytest.raises(SourceError, match=r"00000.parquet' has no column status, width; it has url, caption, uid, key"):
        opened(path)
    write_table(path, table)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(SourceError, match=r"00000.parquet' of '.*00000.tar' is not whole"):
        opened(path)
    file.unlink()
    with pytest.raises(SourceError, match=r"no table '.*00000.parquet' beside '.*00000.tar'; .*table=False"):
        opened(path)


def test_what_a_table_does_not_tell_is_an_error_before_measuring(tmp_path, measurer):
    path = downloaded(tmp_path)
    reader = dataclasses.replace(ImageCaptions(), caption="json")
    with pytest.raises(SourceError, match=r"'json' is read of '.*00000.tar', which the table .* does not tell"):
        measure_shard(opened(path), reader, measurer)
    write_table(path, table_of(path).drop_columns(["caption"]))
    with pytest.raises(SourceError, match="has no column caption"):
        measure_shard(opened(path), ImageCaptions(), measurer)


def test_a_tar_of_no_sample_has_no_sizes(tmp_path, measurer):
    path = write_tar(tmp_path / "00000.tar", [])
    write_table(path, pa.Table.from_pylist([], SCHEMA))
    assert measure_shard(opened(path), ImageCaptions(), measurer).records == 0
