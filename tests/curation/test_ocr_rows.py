"""Rows of OCR: the released captions, and what is written is read back by the reader of the published set."""

import io
import json
from pathlib import Path

import curated
import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg, write_tar

from xgenmm_jax.curation.images import Images
from xgenmm_jax.curation.ocr import captions_of
from xgenmm_jax.curation.shards import Options, schema_of
from xgenmm_jax.data.pack import pack_source, packed_source
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.readers.ocr import Ocr
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.folder import Folder
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.tars import Tars

ROW0 = json.loads((Path(__file__).parents[1] / "goldens" / "ocr" / "row0.json").read_text())
RNG = np.random.default_rng(0)


def test_a_released_rows_captions_follow_from_its_metadata():
    metadata = {"length": 2, "entries": ROW0["entries_shown"]}
    made = captions_of(metadata, "2020 Honda Fit LX CVT")
    assert len(made) == 12
    for one, released in zip(made, ROW0["captions"], strict=True):
        released = dict(released)
        text, whole = released.pop("text"), one.pop("text")
        assert one == released
        assert whole.startswith(text.removesuffix("...")) if text.endswith("...") else whole == text


def read_back(folder: Path, reader: Ocr, images: str | None = None) -> list:
    index = folder.with_name(f"index of {reader}")
    source = ShardedSource(Parquet(f"{folder}/data/*.parquet", images), reader, index=str(index))
    records = source.open()
    return [records.record(number, RNG) for number in range(len(records))]


@pytest.mark.parametrize("granularity", range(6))
def test_what_is_made_is_read_by_the_reader_of_the_published_set(tmp_path, granularity):
    folder = tmp_path / "made"
    curated.made(curated.images(tmp_path / "tars"), folder)
    for raw in (False, True):
        of_captions = Ocr(granularity, raw, filler=True, source="captions", image=("image",))
        of_entries = Ocr(granularity, raw, filler=True, image=("image",))
        texts = [one.text for one in read_back(folder, of_captions)]
        assert texts == [one.text for one in read_back(folder, of_entries)] and len(texts) == 9
        assert texts[0].startswith("Picture 000000000. The image" if raw else "The image contains the")
    first = read_back(folder, Ocr(image=("image",)))[0]
    assert 'ümlaut"' in first.text and "noise" not in first.text
    assert first.image.load().size == (64, 48)


def test_columns_are_the_released_ones_and_those_of_options(tmp_path):
    released = ["uid", "face_bboxes", "url", "key", "captions", "metadata"]
    schema = schema_of(curated.rows_of(), Options(images=False))
    assert schema.names == [*released, "license", "__index_level_0__"]
    assert str(schema.field("face_bboxes").type) == "list<item: list<item: double>>"
    large = schema_of(curated.rows_of(command="ocr-hd"), Options(faces="none"))
    assert {"width", "height", "image"} < set(large.names) and "face_bboxes" not in large.names


def test_a_row_has_the_sources_names_and_the_corners_as_fractions(tmp_path):
    curated.made(curated.images(tmp_path / "tars"), tmp_path / "made", images=False)
    row = pq.read_table(tmp_path / "made" / "data" / "000001.parquet").to_pylist()[1]
    assert row["url"] == "http://x.org/000010002.jpg" and row["key"] == "000010002"
    assert row["license"] == "cc0" and row["face_bboxes"] == [[0, 0, 1, 1]] and row["__index_level_0__"] == 2
    metadata = json.loads(row["metadata"])
    assert metadata["uid"] == f"datacomp_ocr_{row['uid']}" and len(row["uid"]) == 32 and metadata["length"] == 1
    assert metadata["entries"][0]["bbox"] == [[0.0, 0.0], [0.5, 0.0], [0.5, 0.25], [0.0, 0.25]]
    assert metadata["entries"][0]["confidence"] == 0.913


def test_the_files_of_a_source_that_has_no_urls_are_found_again(tmp_path):
    """Rows without images name files of a folder, which the reader opens there."""
    for name in ("b/two.jpg", "a/one.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        (tmp_path / "images" / name).write_bytes(jpeg((30, 20), len(name)))
    source = ShardedSource(Folder(str(tmp_path / "images" / "**" / "*.jpg")), Images())
    curated.made(source, tmp_path / "made", images=False)
    found = read_back(tmp_path / "made", Ocr(image=(), image_name="url"), str(tmp_path / "images"))
    assert [one.image.size_px for one in found] == [(30, 20)] * 2


def test_small_pictures_are_no_hd(tmp_path):
    source = curated.images(tmp_path / "tars")
    result = curated.made(source, tmp_path / "made", curated.rows_of(command="ocr-hd", above_px=48))
    assert result.left_out()["sides too short"][0] == 9
    result = curated.made(source, tmp_path / "more", curated.rows_of(command="ocr-hd", above_px=47, most_px=63))
    assert result.left_out()["a side too long"][0] == 9
    result = curated.made(source, tmp_path / "all", curated.rows_of(command="ocr-hd", above_px=47, most_px=64))
    assert result.rows == 9


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"least_confidence": 1.1}, "--least-confidence: got 1.1"), ({"least_lines": 0}, "--least-lines: got 0")],
)
def test_options_that_mean_nothing_are_told_before_anything_is_written(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        curated.made(curated.images(tmp_path / "tars"), tmp_path / "made", curated.rows_of(**options))
    assert not (tmp_path / "made").exists()


def test_packed_records_and_what_was_made_are_sources_too(tmp_path):
    """Storages differ in which fields they have beside an image; none is asked for one that it has not."""
    curated.images(tmp_path / "tars")
    captions = ShardedSource(Tars(str(tmp_path / "tars" / "*.tar")), ImageCaptions())
    pack_source(captions, tmp_path / "packed")
    assert curated.made(packed_source(tmp_path / "packed"), tmp_path / "made").rows == 9
    rows = ShardedSource(Parquet(f"{tmp_path}/made/data/*.parquet"), Images())
    again = curated.made(rows, tmp_path / "again")
    assert again.rows == 9 and again.left_out() == {}
    one, other = (pq.read_table(tmp_path / name / "data" / "000001.parquet") for name in ("made", "again"))
    assert one.column("uid") == other.column("uid")


@pytest.mark.parametrize(("end", "form"), [("JPG", "JPEG"), ("gif", "GIF"), ("tif", "TIFF"), ("bmp", "BMP")])
def test_a_tars_image_is_taken_whatever_its_form(tmp_path, end, form):
    """Pages stored as TIFF were left out of tars, though the same file was read from a folder."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (64, 48), (200, 10, 10)).save(file, form)
    write_tar(tmp_path / "tars" / "0.tar", [("page", {end: file.getvalue(), "txt": b"A page"})])
    result = curated.made(curated.images(tmp_path / "tars", shards=0), tmp_path / "made")
    assert (result.rows, result.left_out()) == (1, {})
